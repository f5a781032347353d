#include "tokenizer/tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "support/catch.h"
#include "tandem/error.h"
#include "unit/tokenizer_fixtures.h"

namespace tandem {
namespace {

using testing::fixture;
using testing::fixture_tokenizer;
using testing::Ids;

TEST_CASE("fixtures: ids and text equal those of Hugging Face tokenizers", "[tokenizer]") {
  const std::string name = GENERATE(from_range(testing::fixture_names()));
  CAPTURE(name);
  const nlohmann::json data = fixture(name);
  const Tokenizer tokenizer = fixture_tokenizer(name);
  for (const auto& entry : data.at("cases")) {
    const auto text = entry.at("text").get<std::string>();
    CAPTURE(text);
    CHECK(tokenizer.encode(text, false) == entry.at("ids").get<Ids>());
    const Ids special = entry.at("ids_special").get<Ids>();
    CHECK(tokenizer.encode(text, true) == special);
    CHECK(tokenizer.decode(special, false) == entry.at("decoded").get<std::string>());
    CHECK(tokenizer.decode(special, true) == entry.at("decoded_skip_special").get<std::string>());
  }
  for (const auto& entry : data.at("decodes")) {
    const Ids ids = entry.at("ids").get<Ids>();
    CAPTURE(ids);
    CHECK(tokenizer.decode(ids, false) == entry.at("decoded").get<std::string>());
    CHECK(tokenizer.decode(ids, true) == entry.at("decoded_skip_special").get<std::string>());
  }
}

TEST_CASE("the demonstration pair's tokenizers agree with the reference", "[tokenizer]") {
  const std::filesystem::path root = TANDEM_SOURCE_DIR;
  const std::string model = GENERATE("models/demo/main", "models/demo/draft");
  const Tokenizer tokenizer = Tokenizer::from_folder(root / model);
  CHECK(tokenizer.token_id("<|begin_of_text|>") == 0);
  CHECK(tokenizer.is_special(0));
  CHECK(tokenizer.is_special(1));
  CHECK_FALSE(tokenizer.is_special(2));
  const auto pair = fixture("demo_pair");
  for (const auto& prompt : pair.at("prompts")) {
    const auto text = prompt.at("text").get<std::string>();
    const Ids ids = prompt.at("ids").get<Ids>();
    CHECK(tokenizer.encode(text, true) == ids);
    CHECK(tokenizer.encode(text, false) == Ids(ids.begin() + 1, ids.end()));
    CHECK(tokenizer.decode(ids, true) == text);
    CHECK(tokenizer.decode(prompt.at("continuation").get<Ids>(), true) ==
          prompt.at("continuation_text").get<std::string>());
  }
}

TEST_CASE("special tokens are text unless they are asked for", "[tokenizer]") {
  const Tokenizer tokenizer = fixture_tokenizer("qwen2");
  const int32_t start = tokenizer.token_id("<|im_start|>").value();
  const int32_t tool = tokenizer.token_id("<tool_call>").value();
  const Ids special = tokenizer.encode("<|im_start|><tool_call>", true);
  CHECK(special == Ids{start, tool});
  const Ids plain = tokenizer.encode("<|im_start|><tool_call>", false);
  REQUIRE(plain.size() > 2);
  CHECK(plain.back() == tool);  // added, but not special
  CHECK(std::count(plain.begin(), plain.end(), start) == 0);
  CHECK(tokenizer.decode(special, true) == "<tool_call>");
  CHECK(tokenizer.decode(special, false) == "<|im_start|><tool_call>");
  CHECK(tokenizer.decode(plain, true) == "<|im_start|><tool_call>");
}

TEST_CASE("token bytes stand for what a token adds to a text", "[tokenizer]") {
  SECTION("byte-level") {
    const Tokenizer tokenizer = fixture_tokenizer("llama3");
    CHECK(tokenizer.token_bytes(tokenizer.token_id("Ġlarger").value()) == " larger");
    CHECK(tokenizer.token_bytes(tokenizer.token_id("Ċ").value()) == "\n");
    CHECK(tokenizer.token_bytes(tokenizer.token_id("Ã").value()) == "\xC3");
    CHECK(tokenizer.token_bytes(tokenizer.token_id("<|eot_id|>").value()) == "<|eot_id|>");
    // All 256 bytes are there, each once.
    std::vector<bool> seen(256, false);
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
      const auto bytes = tokenizer.token_bytes(id);
      REQUIRE(bytes);
      if (bytes->size() == 1) seen[static_cast<uint8_t>(bytes->front())] = true;
    }
    CHECK(std::count(seen.begin(), seen.end(), true) == 256);
  }
  SECTION("byte fallback") {
    const Tokenizer tokenizer = fixture_tokenizer("llama2");
    CHECK(tokenizer.token_bytes(tokenizer.token_id("<0xE2>").value()) == "\xE2");
    CHECK(tokenizer.token_bytes(tokenizer.token_id("▁").value()) == " ");
    CHECK(tokenizer.token_bytes(tokenizer.token_id("<s>").value()) == "<s>");
    CHECK(tokenizer.is_special(tokenizer.token_id("<s>").value()));
  }
  SECTION("unused ids") {
    const Tokenizer tokenizer = fixture_tokenizer("llama3");
    CHECK_FALSE(tokenizer.token_bytes(-1));
    CHECK_FALSE(tokenizer.token_bytes(tokenizer.vocab_size()));
    CHECK_FALSE(tokenizer.token_bytes(INT32_MAX));
    CHECK_FALSE(tokenizer.is_special(-1));
    CHECK_FALSE(tokenizer.token_id("no such token"));
    CHECK(tokenizer.decode(Ids{-5, 1 << 30, tokenizer.vocab_size()}, false).empty());
  }
}

TEST_CASE("ids may leave gaps, and vocab_size counts to the largest", "[tokenizer]") {
  const Tokenizer tokenizer = Tokenizer::from_json(
      R"({"model": {"type": "BPE", "vocab": {"a": 3, "b": 7}, "merges": []},
          "added_tokens": [{"id": 20, "content": "<x>", "special": true}]})",
      "t.json");
  CHECK(tokenizer.vocab_size() == 21);
  CHECK(tokenizer.encode("a<x>b", true) == Ids{3, 20, 7});
  CHECK_FALSE(tokenizer.token_bytes(4));
  CHECK(tokenizer.decode(Ids{3, 4, 7}, true) ==
        "a b");  // without a decoder, spaces part the tokens
}

TEST_CASE("text that is not UTF-8 is refused with the offset", "[tokenizer]") {
  const Tokenizer tokenizer = fixture_tokenizer("llama3");
  const auto [text, offset] = GENERATE(table<std::string, std::string>({
      {"abc\xFF", "byte 3"},                // no lead byte
      {"\xC0\x80", "byte 0"},               // overlong
      {"a\xED\xA0\x80", "byte 1"},          // surrogate
      {"\xF4\x90\x80\x80", "byte 0"},       // beyond U+10FFFF
      {"\xE2\x96\x81\xE2\x96", "byte 3"},   // cut short
      {"x\x80", "byte 1"},                  // continuation alone
      {"\xC3\xA9\xE2\x28\xA1 ", "byte 2"},  // second byte wrong
  }));
  CAPTURE(text, offset);
  try {
    tokenizer.encode(text, true);
    FAIL("accepted");
  } catch (const UsageError& error) {
    CHECK(std::string(error.what()).ends_with(offset));
  }
}

TEST_CASE("a long word takes no quadratic time", "[tokenizer]") {
  const Tokenizer tokenizer = fixture_tokenizer("llama2");
  const std::string text(400'000, 'a');  // one single piece: Llama 2 has no pre-tokenizer
  CHECK(tokenizer.decode(tokenizer.encode(text, false), false) == text);
}

TEST_CASE("a long run of combining marks takes no quadratic time", "[tokenizer]") {
  const Tokenizer tokenizer = fixture_tokenizer("qwen2");
  std::string text = "a";
  std::string sorted = "a";
  constexpr int kMarks = 100'000;
  for (int i = 0; i < kMarks; ++i) text += "\u0301\u0316";  // classes 230 and 220: out of order
  for (int i = 0; i < kMarks; ++i) sorted += "\u0316";
  sorted = "\u00E1" + sorted.substr(1);
  for (int i = 1; i < kMarks; ++i) sorted += "\u0301";
  CHECK(tokenizer.decode(tokenizer.encode(text, false), false) == sorted);
}

TEST_CASE("threads may share a tokenizer, and copies share its tables", "[tokenizer]") {
  const std::string name = GENERATE("llama3", "qwen2", "llama2", "normalizers");
  const nlohmann::json data = fixture(name);
  const Tokenizer tokenizer = fixture_tokenizer(name);
  constexpr int kThreads = 4;
  std::vector<int> wrong(kThreads, 0);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t, copy = tokenizer] {
      for (const auto& entry : data.at("cases")) {
        const Ids ids = copy.encode(entry.at("text").get<std::string>(), true);
        if (ids != entry.at("ids_special").get<Ids>()) ++wrong[static_cast<size_t>(t)];
        if (copy.decode(ids, false) != entry.at("decoded").get<std::string>()) {
          ++wrong[static_cast<size_t>(t)];
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(kThreads, 0));
}

TEST_CASE("older forms of a file mean the same", "[tokenizer]") {
  const std::string text = "It's the larger model <|eot_id|>";
  nlohmann::json file = fixture("llama3").at("tokenizer");
  const Ids expected = fixture_tokenizer("llama3").encode(text, true);
  SECTION("merges as strings") {
    for (auto& merge : file["model"]["merges"]) {
      merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
    }
  }
  SECTION("a version line among the merges") {
    auto& merges = file["model"]["merges"];
    merges.insert(merges.begin(), "#version: 0.2");
  }
  SECTION("a model without a type") { file["model"].erase("type"); }
  SECTION("dropout 0 instead of null") { file["model"]["dropout"] = 0.0; }
  SECTION("truncation and padding play no part") {
    file["truncation"] = {{"max_length", 2}};
    file["padding"] = {{"strategy", "BatchLongest"}};
  }
  CHECK(Tokenizer::from_json(file.dump(), "t.json").encode(text, true) == expected);
}

TEST_CASE("Metaspace's older form has add_prefix_space", "[tokenizer]") {
  const auto first = [](const char* pre_tokenizer) {
    const std::string json = std::string(R"({"model": {"vocab": {"▁": 0, "a": 1}, "merges": []},
                                             "pre_tokenizer": )") +
                             pre_tokenizer + "}";
    return Tokenizer::from_json(json, "t.json").encode("a", true).front();
  };
  CHECK(first(R"({"type": "Metaspace", "replacement": "▁", "add_prefix_space": true})") == 0);
  CHECK(first(R"({"type": "Metaspace", "replacement": "▁", "add_prefix_space": false})") == 1);
  CHECK(first(R"({"type": "Metaspace", "replacement": "▁"})") == 0);
  CHECK(first(R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"})") == 1);
}

}  // namespace
}  // namespace tandem
