#include "model/kv_cache.h"

#include <set>

#include "backend/backend.h"
#include "support/catch.h"
#include "tandem/error.h"

namespace tandem {
namespace {

ModelConfig tiny_config() {
  ModelConfig config;
  config.family = &families().front();
  config.vocab_size = 10;
  config.hidden_size = 8;
  config.intermediate_size = 8;
  config.num_layers = 3;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 4;
  config.max_position_embeddings = 1024;
  return config;
}

/// A cache on the CPU, whose memory a test may look into.
struct Fixture {
  explicit Fixture(const KvCacheSize& wanted)
      : size(wanted),
        backend(make_backend(parse_device("cpu"), 1)),
        stream(backend->make_stream()),
        arena(backend->memory(), KvCache::bytes(config, shard, size, DType::kF32), "test cache"),
        cache(config, shard, size, *backend, arena, *stream) {}

  int32_t page(int sequence, int index) const {
    const KvLayerView& view = cache.layer(0);
    return view.page_table[sequence * view.max_pages + index];
  }
  /// The first float of a slot's key in a layer.
  float& key(int layer, int sequence, int slot) const {
    const KvLayerView& view = cache.layer(layer);
    const int64_t page_floats =
        static_cast<int64_t>(view.kv_heads) * view.page_tokens * view.head_dim;
    return view.keys.as<float>()[page(sequence, slot / kPageTokens) * page_floats +
                                 slot % kPageTokens * view.head_dim];
  }

  ModelConfig config = tiny_config();
  ModelShard shard = ModelShard::whole(config);
  KvCacheSize size;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Stream> stream;
  Arena arena;
  KvCache cache;
};

TEST_CASE("A cache takes the bytes its formula gives") {
  const Fixture f({.max_positions = 100, .max_sequences = 2, .pages = 5});
  CHECK(f.arena.used_bytes() == f.arena.bytes());
  // 3 layers, keys and values, 5 pages of 1 head * 32 slots * 4 floats; a table of 2 * 4 entries
  CHECK(f.arena.bytes() == 3 * 2 * 5 * 32 * 4 * 4 + 256);
  CHECK(f.cache.layer(2).keys.shape() == Shape{5, 1, kPageTokens, 4});
  CHECK(f.cache.layer(1).max_pages == 4);
  CHECK(f.size.full_pages() == 8);
}

TEST_CASE("Reserving takes pages one by one and never twice") {
  Fixture f({.max_positions = 100, .max_sequences = 2, .pages = 6});
  f.cache.reserve(0, 1, *f.stream);
  CHECK(f.cache.free_pages() == 5);
  f.cache.reserve(0, 32, *f.stream);
  CHECK(f.cache.free_pages() == 5);
  f.cache.reserve(0, 33, *f.stream);
  f.cache.reserve(1, 70, *f.stream);
  CHECK(f.cache.free_pages() == 1);
  f.cache.reserve(0, 10, *f.stream);  // never gives back
  CHECK(f.cache.reserved_tokens(0) == 33);
  const std::set<int32_t> pages = {f.page(0, 0), f.page(0, 1), f.page(1, 0), f.page(1, 1),
                                   f.page(1, 2)};
  CHECK(pages.size() == 5);
  CHECK((*pages.begin() >= 0 && *pages.rbegin() < 6));
}

TEST_CASE("A reservation that does not fit changes nothing") {
  Fixture f({.max_positions = 100, .max_sequences = 2, .pages = 3});
  f.cache.reserve(0, 40, *f.stream);
  CHECK_THROWS_AS(f.cache.reserve(1, 33, *f.stream), MemoryError);
  CHECK(f.cache.reserved_tokens(1) == 0);
  CHECK(f.cache.free_pages() == 1);
  CHECK_THROWS_AS(f.cache.reserve(0, 101, *f.stream), MemoryError);
  f.cache.truncate(0, 0);
  CHECK(f.cache.free_pages() == 3);
  f.cache.reserve(1, 96, *f.stream);
  CHECK(f.cache.free_pages() == 0);
}

TEST_CASE("Truncating gives whole pages back") {
  Fixture f({.max_positions = 128, .max_sequences = 1, .pages = 4});
  f.cache.reserve(0, 128, *f.stream);
  f.cache.truncate(0, 200);
  CHECK(f.cache.reserved_tokens(0) == 128);
  f.cache.truncate(0, 65);
  CHECK(f.cache.free_pages() == 1);
  f.cache.truncate(0, 64);
  CHECK(f.cache.free_pages() == 2);
  f.cache.truncate(0, 0);
  CHECK(f.cache.free_pages() == 4);
  CHECK_THROWS_AS(f.cache.truncate(0, -1), ShapeError);
}

TEST_CASE("Forks share whole pages and copy the partial one, in every layer") {
  Fixture f({.max_positions = 128, .max_sequences = 3, .pages = 8});
  f.cache.reserve(0, 50, *f.stream);
  for (int layer = 0; layer < 3; ++layer) {
    f.key(layer, 0, 5) = 1.0f + static_cast<float>(layer);
    f.key(layer, 0, 40) = 10.0f + static_cast<float>(layer);
  }
  f.cache.fork(0, 1, 45, *f.stream);
  CHECK(f.page(1, 0) == f.page(0, 0));
  CHECK(f.page(1, 1) != f.page(0, 1));
  CHECK(f.cache.free_pages() == 5);
  for (int layer = 0; layer < 3; ++layer) {
    CHECK(f.key(layer, 1, 5) == 1.0f + static_cast<float>(layer));
    CHECK(f.key(layer, 1, 40) == 10.0f + static_cast<float>(layer));
  }
  f.key(0, 1, 40) = -1.0f;
  CHECK(f.key(0, 0, 40) == 10.0f);

  SECTION("shared pages live until the last sequence lets go") {
    f.cache.truncate(0, 0);
    CHECK(f.cache.free_pages() == 6);
    CHECK(f.key(2, 1, 5) == 3.0f);
    f.cache.truncate(1, 0);
    CHECK(f.cache.free_pages() == 8);
  }
  SECTION("a multiple of the page size needs no copy") {
    f.cache.fork(0, 2, 32, *f.stream);
    CHECK(f.cache.free_pages() == 5);
    CHECK(f.page(2, 0) == f.page(0, 0));
  }
  SECTION("forking onto a sequence replaces it") {
    f.cache.fork(0, 1, 32, *f.stream);
    CHECK(f.cache.free_pages() == 6);
    CHECK(f.cache.reserved_tokens(1) == 32);
  }
  SECTION("forking nothing empties") {
    f.cache.fork(0, 1, 0, *f.stream);
    CHECK(f.cache.reserved_tokens(1) == 0);
    CHECK(f.cache.free_pages() == 6);
  }
  SECTION("bad forks") {
    CHECK_THROWS_AS(f.cache.fork(0, 0, 10, *f.stream), ShapeError);
    CHECK_THROWS_AS(f.cache.fork(0, 1, 51, *f.stream), ShapeError);
    CHECK_THROWS_AS(f.cache.fork(0, 1, -1, *f.stream), ShapeError);
    CHECK_THROWS_AS(f.cache.fork(0, 3, 10, *f.stream), ShapeError);
    CHECK_THROWS_AS(f.cache.fork(-1, 0, 10, *f.stream), ShapeError);
  }
}

TEST_CASE("A sequence that goes back into a shared page writes into a copy of its own") {
  Fixture f({.max_positions = 128, .max_sequences = 2, .pages = 4});
  f.cache.reserve(0, 64, *f.stream);
  f.key(1, 0, 35) = 7.0f;
  f.key(1, 0, 60) = 8.0f;
  f.cache.fork(0, 1, 64, *f.stream);
  CHECK(f.cache.free_pages() == 2);
  f.cache.truncate(0, 40);
  f.cache.reserve(0, 64, *f.stream);
  CHECK(f.page(0, 1) != f.page(1, 1));
  CHECK(f.key(1, 0, 35) == 7.0f);
  f.key(1, 0, 60) = -1.0f;
  CHECK(f.key(1, 1, 60) == 8.0f);
  CHECK(f.cache.free_pages() == 1);
}

TEST_CASE("No sequence of reservations, forks and truncations loses a page or mixes contents") {
  constexpr int kSequences = 4, kMaxPositions = 160, kSteps = 4000;
  Fixture f({.max_positions = kMaxPositions, .max_sequences = kSequences, .pages = 14});
  std::vector<std::vector<float>> expected(kSequences);  // what each slot was given
  uint32_t random = 12345;
  const auto draw = [&](int below) {
    random = random * 1664525u + 1013904223u;
    return static_cast<int>((random >> 8) % static_cast<uint32_t>(below));
  };
  float next_value = 1;
  int refused = 0;
  for (int step = 0; step < kSteps; ++step) {
    const int sequence = draw(kSequences);
    std::vector<float>& slots = expected[static_cast<size_t>(sequence)];
    try {
      switch (draw(3)) {
        case 0: {
          const int tokens = draw(kMaxPositions + 1);
          f.cache.reserve(sequence, tokens, *f.stream);
          while (static_cast<int>(slots.size()) < tokens) {
            f.key(2, sequence, static_cast<int>(slots.size())) = next_value;
            slots.push_back(next_value++);
          }
          break;
        }
        case 1: {
          const auto tokens = static_cast<size_t>(draw(kMaxPositions));
          f.cache.truncate(sequence, static_cast<int>(tokens));
          slots.resize(std::min(slots.size(), tokens));
          break;
        }
        default: {
          const int from = (sequence + 1 + draw(kSequences - 1)) % kSequences;
          const std::vector<float>& source = expected[static_cast<size_t>(from)];
          const int tokens = draw(static_cast<int>(source.size()) + 1);
          slots.clear();
          f.cache.fork(from, sequence, tokens, *f.stream);
          slots.assign(source.begin(), source.begin() + tokens);
        }
      }
    } catch (const MemoryError&) {
      ++refused;
    }
    std::set<int32_t> used;
    for (int s = 0; s < kSequences; ++s) {
      const std::vector<float>& held = expected[static_cast<size_t>(s)];
      REQUIRE(f.cache.reserved_tokens(s) == static_cast<int>(held.size()));
      for (int i = 0; i < pages_for(static_cast<int>(held.size())); ++i) used.insert(f.page(s, i));
      for (size_t slot = 0; slot < held.size(); ++slot) {
        if (f.key(2, s, static_cast<int>(slot)) != held[slot])
          FAIL("step " << step << ", slot " << slot);
      }
    }
    REQUIRE(static_cast<int>(used.size()) + f.cache.free_pages() == 14);
  }
  CHECK(refused > 0);
  CHECK(refused < kSteps / 2);
}

TEST_CASE("A shard's cache holds its own layers and heads") {
  ModelConfig config = tiny_config();
  config.num_kv_heads = 2;
  ModelShard shard = ModelShard::whole(config);
  shard.layers = {1, 3};
  shard.kv_heads = {1, 2};
  const KvCacheSize size{.max_positions = 32, .max_sequences = 1, .pages = 1};
  const std::unique_ptr<Backend> backend = make_backend(parse_device("cpu"), 1);
  const std::unique_ptr<Stream> stream = backend->make_stream();
  Arena arena(backend->memory(), KvCache::bytes(config, shard, size, DType::kF32), "test cache");
  const KvCache cache(config, shard, size, *backend, arena, *stream);
  CHECK(arena.bytes() == 2 * 2 * 32 * 4 * 4 + 256);
  CHECK(cache.layer(1).keys.data() != cache.layer(2).keys.data());
  CHECK(cache.layer(1).kv_heads == 1);
  CHECK_THROWS(cache.layer(0));
  CHECK_THROWS(cache.layer(3));
}

}  // namespace
}  // namespace tandem
