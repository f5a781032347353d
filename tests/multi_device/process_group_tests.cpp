// Processes that meet over TCP, here played by threads of one process.

#include <chrono>
#include <functional>
#include <map>
#include <numeric>
#include <thread>

#include "comm/process_group.h"
#include "comm/socket_communicator.h"
#include "support/catch.h"
#include "support/free_port.h"

namespace tandem {
namespace {

using namespace std::chrono_literals;
using testing::free_port;

ProcessPlace place(int rank, int world_size, int port) {
  ProcessPlace place;
  place.rank = rank;
  place.world_size = world_size;
  place.address = "127.0.0.1";
  place.port = port;
  place.patience = 20s;
  return place;
}

/// What each rank's work ended with: nothing, or an error's message.
using Messages = std::vector<std::string>;

/// Runs `work` once for each place, each on a thread of its own.
Messages in_processes(const std::vector<ProcessPlace>& places,
                      const std::function<void(const std::shared_ptr<ProcessGroup>&)>& work) {
  Messages messages(places.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < places.size(); ++i) {
    threads.emplace_back([&, i] {
      try {
        work(join_processes(places[i]));
      } catch (const std::exception& error) {
        messages[i] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return messages;
}

std::vector<ProcessPlace> places_of(int count) {
  const int port = free_port();
  std::vector<ProcessPlace> places;
  for (int rank = 0; rank < count; ++rank) places.push_back(place(rank, count, port));
  return places;
}

/// For groups that must not form.
void nobody_meets(const std::shared_ptr<ProcessGroup>&) { throw Error("they met"); }

TEST_CASE("Processes meet, exchange what they brought, and hear rank 0") {
  constexpr int kSize = 3;
  std::vector<int> wrong(kSize, 0);
  const Messages messages = in_processes(places_of(kSize), [&](const auto& group) {
    int& errors = wrong[static_cast<size_t>(group->rank())];
    errors += group->processes_here() != kSize || group->index_here() != group->rank();
    group->describe_devices("cpu:" + std::to_string(group->rank()));
    errors += group->name_of(1) != "rank 1 (cpu:1)";
    const std::string large(300'000, static_cast<char>('a' + group->rank()));
    const std::vector<std::string> all = group->all_gather(large);
    for (size_t rank = 0; rank < kSize; ++rank) {
      errors += all[rank] != std::string(large.size(), static_cast<char>('a' + rank));
    }
    errors += group->broadcast(group->rank() == 0 ? "root" : "other") != "root";
    if (group->rank() == 0) {
      group->tell("one");
      group->tell("");
    } else {
      errors += group->hear() != "one" || !group->hear().empty();
    }
    group->barrier();
  });
  CHECK(messages == Messages(kSize));
  CHECK(wrong == std::vector<int>(kSize, 0));
}

TEST_CASE("A process that never comes is named, and so is one without a rank 0") {
  ProcessPlace first = place(0, 3, free_port()), second = place(1, 3, first.port);
  first.patience = second.patience = 500ms;
  const Messages messages = in_processes({first, second}, [](const auto&) {});
  CHECK_THAT(messages[0], ContainsText("rank 2 never came to 127.0.0.1:"));
  CHECK_THAT(messages[0], ContainsText("2 of 3 processes are there"));
  CHECK_FALSE(messages[1].empty());

  ProcessPlace alone = place(1, 2, free_port());
  alone.patience = 300ms;
  CHECK_THROWS_WITH(join_processes(alone), ContainsText("rank 0 does not answer at 127.0.0.1:"));
}

TEST_CASE("A port that is taken says so") {
  const Listener other("127.0.0.1", 0);
  CHECK_THROWS_WITH(join_processes(place(0, 2, other.port())),
                    ContainsText("cannot listen on port " + std::to_string(other.port())) &&
                        ContainsText("--master-port"));
}

TEST_CASE("Worlds of different size, and two processes of one rank, are refused everywhere") {
  const int port = free_port();
  Messages messages = in_processes({place(0, 2, port), place(1, 3, port)}, nobody_meets);
  for (const std::string& message : messages) {
    CHECK_THAT(message, ContainsText("was started in a world of 3 processes, rank 0 in one of 2"));
  }
  const int other = free_port();
  messages =
      in_processes({place(0, 3, other), place(1, 3, other), place(1, 3, other)}, nobody_meets);
  for (const std::string& message : messages) {
    CHECK_THAT(message, ContainsText("two processes say that they are rank 1"));
  }
}

TEST_CASE("Strangers that call rank 0 hold nobody up") {
  const std::vector<ProcessPlace> places = places_of(2);
  std::string message = "rank 0 did not meet rank 1";
  std::thread first([&] {
    message = in_processes({places[0]}, [](const auto& group) { group->barrier(); }).front();
  });
  const GiveUp never = [] {};
  const Socket silent = connect_to("127.0.0.1", places[0].port, never);
  const Socket loud = connect_to("127.0.0.1", places[0].port, never);
  const std::string request(600, 'G');
  send_all(loud, std::as_bytes(std::span(request)), never);
  join_processes(places[1])->barrier();
  first.join();
  CHECK(message.empty());
}

TEST_CASE("What ends one process's part ends all parts, with its reason") {
  constexpr int kSize = 3;
  const int failing = GENERATE(0, 2);
  const Messages messages = in_processes(places_of(kSize), [&](const auto& group) {
    group->describe_devices("cpu");
    if (group->rank() == failing) {
      abort_processes(*group, "it ran out of luck");
      group->check();
    } else if (group->rank() == 0) {
      (void)group->all_gather("");
    } else {
      (void)group->hear();
    }
  });
  const std::string expected = "rank " + std::to_string(failing) + " (cpu): it ran out of luck";
  CHECK(messages == Messages(kSize, expected));
}

// The communicator over sockets ------------------------------------------------------------------

class NoStream final : public Stream {
 public:
  void record(Event&) override {}
  void wait(const Event&) override {}
  void synchronize() override {}
};

TensorView view(std::vector<float>& values) {
  return TensorView(values.data(), DType::kF32, {static_cast<int64_t>(values.size())}, {});
}

/// Two processes with two ranks each.
Messages on_ranks(const std::function<void(Communicator&, Stream&)>& work) {
  constexpr int kProcesses = 2, kRanksEach = 2;
  return in_processes(places_of(kProcesses), [&](const auto& group) {
    const auto ranks = make_socket_communicators(group, kProcesses * kRanksEach,
                                                 group->rank() * kRanksEach, kRanksEach);
    std::vector<std::thread> threads;
    std::vector<std::string> errors(kRanksEach);
    for (size_t i = 0; i < kRanksEach; ++i) {
      threads.emplace_back([&, i] {
        NoStream stream;
        try {
          work(*ranks[i], stream);
        } catch (const std::exception& error) {
          errors[i] = error.what();
          ranks[i]->abort(error.what());
          group->abort(error.what());
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    group->barrier();
    for (const std::string& error : errors) {
      if (!error.empty()) throw Error(error);
    }
  });
}

TEST_CASE("Over sockets, sums add in rank order and operations move the right bytes") {
  constexpr int kSize = 4;
  constexpr size_t kCount = 50'000;  // more than a socket takes at once
  const auto value = [](int rank, size_t i) {
    return (rank % 2 == 0 ? 1e8f : -1e8f) + static_cast<float>(rank) * 3.3f + static_cast<float>(i);
  };
  std::vector<int> wrong(kSize, 0);
  const Messages messages = on_ranks([&](Communicator& c, Stream& stream) {
    int& errors = wrong[static_cast<size_t>(c.rank())];
    for (int repeat = 0; repeat < 5; ++repeat) {
      std::vector<float> values(kCount), all(kCount * kSize);
      for (size_t i = 0; i < kCount; ++i) values[i] = value(c.rank(), i);
      const TensorView own = view(all).rows(c.rank() * static_cast<int64_t>(kCount), kCount);
      std::copy(values.begin(), values.end(), own.as<float>());
      c.all_gather(repeat % 2 == 0 ? view(values) : own, view(all), stream);
      c.all_reduce_sum(view(values), stream);
      for (size_t i = 0; i < kCount; ++i) {
        float expected = value(0, i);
        for (int rank = 1; rank < kSize; ++rank) expected += value(rank, i);
        errors += values[i] != expected;
        errors += all[static_cast<size_t>(repeat % kSize) * kCount + i] != value(repeat % kSize, i);
      }
      std::vector<float> shared = {static_cast<float>(c.rank())};
      c.broadcast(view(shared), repeat % kSize, stream);
      errors += shared[0] != static_cast<float>(repeat % kSize);
      std::vector<float> token = {0};  // goes once around, each rank adding one
      if (c.rank() > 0) c.recv(view(token), c.rank() - 1, stream);
      token[0] += 1;
      c.send(view(token), (c.rank() + 1) % kSize, stream);
      if (c.rank() == 0) {
        c.recv(view(token), kSize - 1, stream);
        errors += token[0] != kSize;
      }
    }
  });
  CHECK(messages == Messages(2));
  CHECK(std::accumulate(wrong.begin(), wrong.end(), 0) == 0);
}

TEST_CASE("Over sockets, calls that do not match are refused, and an abort wakes who waits") {
  Messages messages = on_ranks([&](Communicator& c, Stream& stream) {
    std::vector<float> values(c.rank() == 0 ? 3 : 4);
    c.all_reduce_sum(view(values), stream);
  });
  for (const std::string& message : messages) CHECK_FALSE(message.empty());
  messages = on_ranks([&](Communicator& c, Stream& stream) {
    std::vector<float> values(4);
    if (c.rank() == 3) throw DeviceError("rank 3 ran out of luck");
    c.all_reduce_sum(view(values), stream);
  });
  for (const std::string& message : messages) {
    CHECK_THAT(message, ContainsText("rank 3 ran out of luck"));
  }
}

// What launchers say -----------------------------------------------------------------------------

ProcessPlace found(const std::map<std::string, std::string>& variables,
                   const ProcessPlaceOptions& options = {}) {
  return find_process_place(options, [&](const char* name) -> const char* {
    const auto variable = variables.find(name);
    return variable == variables.end() ? nullptr : variable->second.c_str();
  });
}

TEST_CASE("torchrun's, Open MPI's and Slurm's variables are understood") {
  CHECK(found({}).world_size == 1);
  std::map<std::string, std::string> torchrun = {{"RANK", "3"},
                                                 {"WORLD_SIZE", "4"},
                                                 {"LOCAL_RANK", "1"},
                                                 {"MASTER_ADDR", "node7"},
                                                 {"MASTER_PORT", "29400"}};
  ProcessPlace place = found(torchrun);
  CHECK(place.rank == 3);
  CHECK(place.world_size == 4);
  CHECK(place.local_rank == 1);
  CHECK(place.address == "node7");
  CHECK(place.port == 29400);
  torchrun["TORCHELASTIC_USE_AGENT_STORE"] = "True";  // its own store is there
  CHECK(found(torchrun).port == 29401);

  std::map<std::string, std::string> mpi = {{"OMPI_COMM_WORLD_RANK", "1"},
                                            {"OMPI_COMM_WORLD_SIZE", "2"},
                                            {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                                            {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};
  place = found(mpi);
  CHECK(place.rank == 1);
  CHECK(place.address == "127.0.0.1");
  CHECK(place.port == ProcessPlace::kDefaultPort);
  mpi["OMPI_COMM_WORLD_LOCAL_SIZE"] = "1";
  CHECK_THROWS_WITH(found(mpi), ContainsText("MASTER_ADDR"));
  mpi["MASTER_ADDR"] = "10.0.0.1";
  CHECK(found(mpi).address == "10.0.0.1");

  std::map<std::string, std::string> slurm = {{"SLURM_PROCID", "2"},
                                              {"SLURM_NTASKS", "8"},
                                              {"SLURM_LOCALID", "0"},
                                              {"SLURM_JOB_ID", "123456"},
                                              {"SLURM_JOB_NODELIST", "gpu[07-09,12],big1"}};
  place = found(slurm);
  CHECK(place.rank == 2);
  CHECK(place.world_size == 8);
  CHECK(place.local_rank == 0);
  CHECK(place.address == "gpu07");
  CHECK(place.port == ProcessPlace::kDefaultPort + 456);
  slurm["SLURM_STEP_NUM_TASKS"] = "4";  // of the job's tasks
  CHECK(found(slurm).world_size == 4);
  for (const auto& [list, first] : std::map<std::string, std::string>{
           {"one", "one"}, {"a1,a2", "a1"}, {"n[3].site,m", "n3.site"}, {"a,b[1-2]", "a"}}) {
    slurm["SLURM_JOB_NODELIST"] = list;
    CHECK(found(slurm).address == first);
  }
  slurm.erase("SLURM_JOB_NODELIST");
  slurm["SLURM_LAUNCH_NODE_IPADDR"] = "10.1.1.1";
  CHECK(found(slurm).address == "10.1.1.1");
  slurm["ENVIRONMENT"] = "BATCH";
  CHECK(found(slurm).world_size == 4);
  slurm.erase("SLURM_STEP_NUM_TASKS");  // the batch script itself
  CHECK(found(slurm).world_size == 1);
  slurm["SLURM_STEP_ID"] = "0";  // a step of it
  CHECK(found(slurm).world_size == 8);
  slurm.erase("SLURM_PROCID");  // a shell in an allocation
  CHECK(found(slurm).world_size == 1);
}

TEST_CASE("Options stand above variables, and what contradicts itself is refused") {
  const ProcessPlaceOptions given = {
      .rank = 1, .world_size = 2, .local_rank = 0, .address = "host", .port = 1234, .patience = 1s};
  const ProcessPlace place = found({{"RANK", "0"}, {"WORLD_SIZE", "4"}}, given);
  CHECK(place.rank == 1);
  CHECK(place.world_size == 2);
  CHECK(place.local_rank == 0);
  CHECK(place.address == "host");
  CHECK(place.port == 1234);
  CHECK(place.patience == 1s);
  const auto placed = [](std::optional<int> rank, std::optional<int> world_size,
                         std::optional<std::string> address) {
    ProcessPlaceOptions options;
    options.rank = rank;
    options.world_size = world_size;
    options.address = std::move(address);
    return found({}, options);
  };
  CHECK_THROWS_WITH(placed(1, 2, {}), ContainsText("where rank 0 is"));
  CHECK_THROWS_WITH(placed(2, 2, "a"), ContainsText("outside of a world of 2"));
  CHECK_THROWS_WITH(placed(1, {}, {}), ContainsText("without --world-size"));
  CHECK_THROWS_WITH(placed({}, 2, {}), ContainsText("without --rank"));
  CHECK_THROWS_WITH(found({{"WORLD_SIZE", "2"}}), ContainsText("RANK is not set"));
  CHECK_THROWS_WITH(found({{"WORLD_SIZE", "two"}}), ContainsText("WORLD_SIZE is 'two'"));
  CHECK_THROWS_WITH(found({{"WORLD_SIZE", "2"}, {"RANK", "0"}, {"MASTER_PORT", "70000"}}),
                    ContainsText("MASTER_PORT is '70000'"));
  CHECK(found({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).world_size == 1);
}

}  // namespace
}  // namespace tandem
