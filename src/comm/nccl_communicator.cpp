#include "comm/nccl_communicator.h"

#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <future>
#include <iterator>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "core/log.h"
#include "tandem/error.h"

namespace tandem {
namespace {

/// How long a destructor waits for an aborted group to be taken down.
constexpr std::chrono::seconds kTakeDownLimit{3};

static_assert(sizeof(ncclUniqueId) == sizeof(NcclId));

std::string device_name(int device) { return "cuda:" + std::to_string(device); }

void check_nccl(ncclResult_t status, const char* call, int device) {
  if (status == ncclSuccess) return;
  const char* const detail = ncclGetLastError(nullptr);
  throw DeviceError(device_name(device) + ": " + call + ": " + ncclGetErrorString(status) +
                    (detail == nullptr || *detail == '\0' ? "" : std::string(" (") + detail + ")") +
                    "; NCCL_DEBUG=INFO makes NCCL say more");
}

void check_runtime(cudaError_t status, const char* call, int device) {
  if (status == cudaSuccess) return;
  throw DeviceError(device_name(device) + ": " + call + ": " + cudaGetErrorString(status));
}

cudaStream_t handle_of(Stream& stream) { return static_cast<cudaStream_t>(stream.native_handle()); }

/// What this process's ranks of a group share: whether it was aborted and why.
class Group {
 public:
  /// True for the first caller.
  bool abort(const std::string& reason) {
    const std::lock_guard lock(mutex_);
    if (aborted_) return false;
    reason_ = "communication was aborted: " + reason;
    aborted_ = true;
    return true;
  }

  std::string failure() const {
    if (!aborted_) return {};
    const std::lock_guard lock(mutex_);
    return reason_;
  }

  void add(ncclComm_t comm, int device) {
    const std::lock_guard lock(mutex_);
    comms_.push_back({comm, device});
  }

  /// Each on a thread of its own: ncclCommAbort waits for graphs that use the communicator, and for
  /// the other ranks of the process.
  static void take_down(const std::shared_ptr<Group>& group) {
    const std::lock_guard lock(group->mutex_);
    group->at_work_ = static_cast<int>(group->comms_.size());
    for (const Comm& comm : group->comms_) {
      std::thread([group, comm] {
        (void)cudaSetDevice(comm.device);
        const ncclResult_t status = ncclCommAbort(comm.handle);
        const std::lock_guard done(group->mutex_);
        if (status != ncclSuccess) {
          log().warn("{}: ncclCommAbort: {}", device_name(comm.device), ncclGetErrorString(status));
        }
        --group->at_work_;
        group->taken_down_.notify_all();
      }).detach();
    }
  }

  void wait_for_take_down() noexcept {
    std::unique_lock lock(mutex_);
    if (taken_down_.wait_for(lock, kTakeDownLimit, [this] { return at_work_ == 0; })) return;
    log().warn("NCCL did not end within {} s of an abort; its memory is not given back",
               kTakeDownLimit.count());
  }

 private:
  struct Comm {
    ncclComm_t handle = nullptr;
    int device = 0;
  };
  mutable std::mutex mutex_;
  std::atomic<bool> aborted_{false};
  std::string reason_;
  std::vector<Comm> comms_;
  int at_work_ = 0;
  std::condition_variable taken_down_;
};

class NcclCommunicator final : public Communicator {
 public:
  /// Takes over the handle.
  NcclCommunicator(std::shared_ptr<Group> group, ncclComm_t comm, int rank, int size, int device,
                   std::string name)
      : group_(std::move(group)),
        comm_(comm),
        rank_(rank),
        size_(size),
        device_(device),
        name_(std::move(name)) {
    group_->add(comm, device);
  }

  ~NcclCommunicator() override {
    if (!group_->failure().empty()) {
      group_->wait_for_take_down();
      return;
    }
    (void)cudaSetDevice(device_);
    const ncclResult_t status = ncclCommDestroy(comm_);
    if (status != ncclSuccess) {
      log().warn("{}: ncclCommDestroy: {}", device_name(device_), ncclGetErrorString(status));
    }
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void all_reduce_sum(TensorView values, Stream& stream) override {
    if (values.dtype() != DType::kF32)
      throw ShapeError("all_reduce_sum: only float32 can be summed");
    begin();
    check(ncclAllReduce(values.data(), values.data(), static_cast<size_t>(values.count()),
                        ncclFloat32, ncclSum, comm_, handle_of(stream)),
          "ncclAllReduce");
  }

  void all_gather(TensorView values, TensorView gathered, Stream& stream) override {
    if (gathered.bytes() != values.bytes() * static_cast<size_t>(size_)) {
      throw ShapeError("all_gather: " + gathered.shape().to_string() + " does not hold " +
                       std::to_string(size_) + " times " + values.shape().to_string());
    }
    begin();
    check(ncclAllGather(values.data(), gathered.data(), values.bytes(), ncclUint8, comm_,
                        handle_of(stream)),
          "ncclAllGather");
  }

  void broadcast(TensorView values, int root, Stream& stream) override {
    begin();
    check(ncclBroadcast(values.data(), values.data(), values.bytes(), ncclUint8, root, comm_,
                        handle_of(stream)),
          "ncclBroadcast");
  }

  void send(TensorView values, int to, Stream& stream) override {
    begin();
    check(ncclSend(values.data(), values.bytes(), ncclUint8, to, comm_, handle_of(stream)),
          "ncclSend");
  }

  void recv(TensorView values, int from, Stream& stream) override {
    begin();
    check(ncclRecv(values.data(), values.bytes(), ncclUint8, from, comm_, handle_of(stream)),
          "ncclRecv");
  }

  void abort(const std::string& reason) override {
    if (group_->abort(reason)) Group::take_down(group_);
  }

  std::string failure() const override {
    const std::string aborted = group_->failure();
    if (!aborted.empty()) return aborted;
    ncclResult_t status = ncclSuccess;
    if (ncclCommGetAsyncError(comm_, &status) != ncclSuccess || status == ncclSuccess ||
        status == ncclInProgress) {
      return {};
    }
    return name_ + ": NCCL: " + ncclGetErrorString(status);
  }

 private:
  void begin() const {
    const std::string aborted = group_->failure();
    if (!aborted.empty()) throw DeviceError(aborted);
    check_runtime(cudaSetDevice(device_), "cudaSetDevice", device_);
  }

  void check(ncclResult_t status, const char* call) const { check_nccl(status, call, device_); }

  const std::shared_ptr<Group> group_;
  const ncclComm_t comm_;
  const int rank_;
  const int size_;
  const int device_;
  const std::string name_;  ///< for messages
};

/// A few floats on a device for the first exchanges.
class Scratch {
 public:
  Scratch(int device, size_t bytes) : device_(device) {
    check_runtime(cudaSetDevice(device), "cudaSetDevice", device);
    check_runtime(cudaMalloc(&data_, bytes), "cudaMalloc", device);
    check_runtime(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                  "cudaStreamCreateWithFlags", device);
  }
  ~Scratch() {
    if (stream_ == nullptr) return;
    (void)cudaSetDevice(device_);
    (void)cudaStreamDestroy(stream_);
    (void)cudaFree(data_);
  }
  Scratch(Scratch&& other) noexcept
      : device_(other.device_),
        data_(std::exchange(other.data_, nullptr)),
        stream_(std::exchange(other.stream_, nullptr)) {}
  Scratch& operator=(Scratch&&) = delete;

  void* data() const { return data_; }
  cudaStream_t stream() const { return stream_; }
  void synchronize() const {
    check_runtime(cudaSetDevice(device_), "cudaSetDevice", device_);
    check_runtime(cudaStreamSynchronize(stream_), "cudaStreamSynchronize", device_);
  }

 private:
  int device_;
  void* data_ = nullptr;
  cudaStream_t stream_ = nullptr;
};

/// The most thread blocks, and with them channels, that NCCL may take for one operation; 0: as many
/// as it likes. A chain hands a prompt's rows on once a pass, for which a third of NVLink's
/// bandwidth is plenty: of two H100s that saves 384 and 576 MiB. Sums need all of it: 16 channels
/// instead of 24 would save 192 MiB of each and make the prefill of an 8B model 1.7 % slower.
constexpr int kChainBlocks = 8;
int most_blocks(Traffic traffic) { return traffic == Traffic::kChain ? kChainBlocks : 0; }

/// Whether rank `from` sends to rank `to`.
bool sends(Traffic traffic, int from, int to) {
  return traffic == Traffic::kAll ? from != to : traffic == Traffic::kChain && to == from + 1;
}

/// What the ranks will do, once: NCCL connects ranks when they first talk, for collectives again by
/// each algorithm that it finds best for some size.
void connect(std::span<const ncclComm_t> comms, int world_size, int first_rank,
             std::span<const int> devices, Traffic traffic) {
  constexpr size_t kFloats = 256;
  constexpr size_t kCollectives[] = {kFloats, size_t{1} << 16, size_t{1} << 20, size_t{1} << 23};
  const auto ranks = static_cast<size_t>(world_size);
  const size_t most =
      std::max(kFloats * ranks, traffic == Traffic::kChain ? 0 : *std::rbegin(kCollectives));
  std::vector<Scratch> scratch;
  scratch.reserve(devices.size());
  for (const int device : devices) scratch.emplace_back(device, most * sizeof(float));
  const auto for_each = [&](const char* call, const auto& operation) {
    check_nccl(ncclGroupStart(), "ncclGroupStart", devices.front());
    for (size_t i = 0; i < comms.size(); ++i) {
      check_nccl(operation(comms[i], first_rank + static_cast<int>(i), scratch[i]), call,
                 devices[i]);
    }
    check_nccl(ncclGroupEnd(), call, devices.front());
  };
  for_each("ncclBroadcast", [&](ncclComm_t comm, int, const Scratch& s) {
    return ncclBroadcast(s.data(), s.data(), kFloats, ncclFloat32, 0, comm, s.stream());
  });
  for (const size_t floats : kCollectives) {
    if (traffic == Traffic::kChain) break;
    for_each("ncclAllReduce", [&](ncclComm_t comm, int, const Scratch& s) {
      return ncclAllReduce(s.data(), s.data(), floats, ncclFloat32, ncclSum, comm, s.stream());
    });
    for_each("ncclAllGather", [&](ncclComm_t comm, int rank, const Scratch& s) {
      const size_t share = floats / ranks;
      auto* const own = static_cast<float*>(s.data()) + static_cast<size_t>(rank) * share;
      return ncclAllGather(own, s.data(), share, ncclFloat32, comm, s.stream());
    });
  }
  for_each("ncclSend", [&](ncclComm_t comm, int rank, const Scratch& s) {
    ncclResult_t status = ncclSuccess;
    for (int peer = 0; peer < world_size && status == ncclSuccess; ++peer) {
      auto* const slot = static_cast<float*>(s.data()) + static_cast<size_t>(peer) * kFloats;
      if (sends(traffic, rank, peer)) {
        status = ncclSend(slot, kFloats, ncclFloat32, peer, comm, s.stream());
      }
      if (sends(traffic, peer, rank) && status == ncclSuccess) {
        status = ncclRecv(slot, kFloats, ncclFloat32, peer, comm, s.stream());
      }
    }
    return status;
  });
  for (const Scratch& s : scratch) s.synchronize();
  // NCCL tries what a machine may lack; what it found out that way is nobody else's error.
  (void)cudaGetLastError();
}

}  // namespace

bool has_nccl() { return true; }

NcclId draw_nccl_id() {
  ncclUniqueId unique;
  const ncclResult_t status = ncclGetUniqueId(&unique);
  if (status != ncclSuccess) {
    throw DeviceError(std::string("NCCL cannot start: ") + ncclGetErrorString(status) +
                      "; NCCL_DEBUG=INFO makes it say more");
  }
  NcclId id;
  std::memcpy(id.data(), &unique, sizeof(unique));
  return id;
}

std::vector<std::unique_ptr<Communicator>> make_nccl_communicators(const NcclId& id, int world_size,
                                                                   int first_rank,
                                                                   std::span<const int> devices,
                                                                   Traffic traffic,
                                                                   const std::string& process) {
  ncclUniqueId unique;
  std::memcpy(&unique, id.data(), sizeof(unique));
  std::vector<ncclComm_t> comms(devices.size(), nullptr);
  check_nccl(ncclGroupStart(), "ncclGroupStart", devices.front());
  for (size_t i = 0; i < devices.size(); ++i) {
    check_runtime(cudaSetDevice(devices[i]), "cudaSetDevice", devices[i]);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    if (most_blocks(traffic) > 0) config.maxCTAs = most_blocks(traffic);
    check_nccl(ncclCommInitRankConfig(&comms[i], world_size, unique,
                                      first_rank + static_cast<int>(i), &config),
               "ncclCommInitRankConfig", devices[i]);
  }
  check_nccl(ncclGroupEnd(), "ncclCommInitRankConfig", devices.front());

  const auto group = std::make_shared<Group>();
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (size_t i = 0; i < devices.size(); ++i) {
    const int rank = first_rank + static_cast<int>(i);
    const std::string own = "rank " + std::to_string(rank) + " (" + device_name(devices[i]) + ")";
    ranks.push_back(std::make_unique<NcclCommunicator>(
        group, comms[i], rank, world_size, devices[i], process.empty() ? own : process));
  }
  connect(comms, world_size, first_rank, devices, traffic);
  return ranks;
}

std::vector<std::unique_ptr<Communicator>> make_nccl_communicators(ProcessGroup& group,
                                                                   int world_size, int first_rank,
                                                                   std::span<const int> devices,
                                                                   Traffic traffic) {
  std::string id;
  if (group.rank() == 0) {
    const NcclId drawn = draw_nccl_id();
    id.assign(reinterpret_cast<const char*>(drawn.data()), drawn.size());
  }
  id = group.broadcast(id);
  NcclId shared;
  if (id.size() != shared.size()) throw DeviceError("rank 0 sent no NCCL id");
  std::memcpy(shared.data(), id.data(), id.size());

  // NCCL waits for ranks that will never come, and cannot be told to stop: a thread of its own
  // does, and is left behind when the group fails.
  using Communicators = std::vector<std::unique_ptr<Communicator>>;
  const auto result = std::make_shared<std::promise<Communicators>>();
  std::future<Communicators> future = result->get_future();
  std::thread([=, own = std::vector<int>(devices.begin(), devices.end()), name = group.own_name()] {
    try {
      result->set_value(
          make_nccl_communicators(shared, world_size, first_rank, own, traffic, name));
    } catch (...) {
      result->set_exception(std::current_exception());
    }
  }).detach();
  while (future.wait_for(kLookInterval) != std::future_status::ready) group.check();
  return future.get();
}

}  // namespace tandem
