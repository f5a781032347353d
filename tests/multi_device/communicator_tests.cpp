#include <chrono>
#include <functional>
#include <numeric>
#include <thread>

#include "comm/thread_communicator.h"
#include "core/stream.h"
#include "support/catch.h"
#include "tandem/error.h"

namespace tandem {
namespace {

class NoStream final : public Stream {
 public:
  void record(Event&) override {}
  void wait(const Event&) override {}
  void synchronize() override {}
};

TensorView view(std::vector<float>& values) {
  return TensorView(values.data(), DType::kF32, {static_cast<int64_t>(values.size())}, {});
}

/// Runs `work` once for each rank, each on a thread of its own.
void on_all(int size, const std::function<void(Communicator&, Stream&)>& work) {
  const auto ranks = make_thread_communicators(size);
  std::vector<std::thread> threads;
  for (const auto& rank : ranks) {
    threads.emplace_back([&work, &rank] {
      NoStream stream;
      work(*rank, stream);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_CASE("Sums add in rank order on every rank, again and again") {
  const int size = GENERATE(1, 2, 3, 5);
  constexpr size_t kCount = 37;
  // Values of very different size: another order of addition gives another sum.
  const auto value = [](int rank, size_t i) {
    return (rank % 2 == 0 ? 1e8f : -1e8f) + static_cast<float>(rank) * 3.3f + static_cast<float>(i);
  };
  std::vector<int> wrong(static_cast<size_t>(size), 0);
  on_all(size, [&](Communicator& c, Stream& stream) {
    for (int repeat = 0; repeat < 50; ++repeat) {
      std::vector<float> values(kCount);
      for (size_t i = 0; i < kCount; ++i) values[i] = value(c.rank(), i);
      c.all_reduce_sum(view(values), stream);
      for (size_t i = 0; i < kCount; ++i) {
        float expected = value(0, i);
        for (int rank = 1; rank < size; ++rank) expected += value(rank, i);
        wrong[static_cast<size_t>(c.rank())] += values[i] != expected;
      }
    }
  });
  CHECK(std::accumulate(wrong.begin(), wrong.end(), 0) == 0);
}

TEST_CASE("Gathering, broadcasting, sending and receiving move the right bytes") {
  constexpr int kSize = 4;
  std::vector<int> wrong(kSize, 0);
  on_all(kSize, [&](Communicator& c, Stream& stream) {
    int& errors = wrong[static_cast<size_t>(c.rank())];
    const auto me = static_cast<float>(c.rank());
    for (int repeat = 0; repeat < 50; ++repeat) {
      std::vector<float> mine = {me, 10 + me}, gathered(2 * kSize);
      c.all_gather(view(mine), view(gathered), stream);
      for (int rank = 0; rank < kSize; ++rank) {
        errors += gathered[static_cast<size_t>(2 * rank)] != static_cast<float>(rank);
        errors += gathered[static_cast<size_t>(2 * rank + 1)] != 10 + static_cast<float>(rank);
      }
      std::vector<float> in_place(kSize, -1);
      in_place[static_cast<size_t>(c.rank())] = me;
      c.all_gather(view(in_place).rows(c.rank(), 1), view(in_place), stream);
      for (int rank = 0; rank < kSize; ++rank) {
        errors += in_place[static_cast<size_t>(rank)] != static_cast<float>(rank);
      }
      const int root = repeat % kSize;
      std::vector<float> shared = {me};
      c.broadcast(view(shared), root, stream);
      errors += shared[0] != static_cast<float>(root);

      // A value goes once around, each rank adding one.
      std::vector<float> token = {0};
      if (c.rank() > 0) c.recv(view(token), c.rank() - 1, stream);
      token[0] += 1;
      c.send(view(token), (c.rank() + 1) % kSize, stream);
      if (c.rank() == 0) {
        c.recv(view(token), kSize - 1, stream);
        errors += token[0] != kSize;
      }
    }
  });
  CHECK(std::accumulate(wrong.begin(), wrong.end(), 0) == 0);
}

TEST_CASE("Aborting wakes every rank that waits, and every later call") {
  using namespace std::chrono_literals;
  constexpr int kSize = 3;
  const auto ranks = make_thread_communicators(kSize);
  std::vector<std::string> messages(kSize);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      NoStream stream;
      std::vector<float> values(4);
      try {
        if (rank == 0) {
          ranks[0]->all_reduce_sum(view(values), stream);
        } else {
          ranks[1]->recv(view(values), 2, stream);
        }
      } catch (const DeviceError& error) {
        messages[static_cast<size_t>(rank)] = error.what();
      }
    });
  }
  std::this_thread::sleep_for(GENERATE(0ms, 30ms));  // while they spin; while they sleep
  ranks[2]->abort("rank 2 ran out of luck");
  ranks[2]->abort("again");
  for (std::thread& thread : threads) thread.join();
  CHECK_THAT(messages[0], ContainsText("rank 2 ran out of luck"));
  CHECK_THAT(messages[1], ContainsText("rank 2 ran out of luck"));
  NoStream stream;
  std::vector<float> values(4);
  CHECK_THROWS_AS(ranks[2]->broadcast(view(values), 0, stream), DeviceError);
  CHECK_THROWS_AS(ranks[2]->send(view(values), 0, stream), DeviceError);
}

TEST_CASE("Calls that do not match are refused on every rank") {
  std::vector<int> refused(2, 0);
  on_all(2, [&](Communicator& c, Stream& stream) {
    std::vector<float> values(c.rank() == 0 ? 3 : 4);
    try {
      c.all_reduce_sum(view(values), stream);
    } catch (const ShapeError&) {
      refused[static_cast<size_t>(c.rank())] = 1;
    }
  });
  CHECK(refused == std::vector<int>{1, 1});
}

TEST_CASE("Calls that cannot be meant are refused at once") {
  const auto ranks = make_thread_communicators(2);
  NoStream stream;
  std::vector<float> values(4);
  CHECK_THROWS_AS(ranks[0]->send(view(values), 0, stream), ShapeError);
  CHECK_THROWS_AS(ranks[0]->recv(view(values), 2, stream), ShapeError);
  CHECK_THROWS_AS(ranks[0]->broadcast(view(values), -1, stream), ShapeError);
  CHECK_THROWS_AS(ranks[0]->all_gather(view(values), view(values), stream), ShapeError);
  std::vector<int32_t> ids(4);
  CHECK_THROWS_AS(ranks[0]->all_reduce_sum(TensorView(ids.data(), DType::kI32, {4}, {}), stream),
                  ShapeError);
  CHECK_THROWS_AS(make_thread_communicators(0), ShapeError);
}

}  // namespace
}  // namespace tandem
