#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <string>
#include <utility>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/cuda_check.h"
#include "backend/cuda/peer_access.h"
#include "backend/pass_link.h"
#include "backend/peer_exchange.h"
#include "kernels/hop.h"
#include "tandem/error.h"

namespace tandem {
namespace {

/// How a rank's memory is divided: a landing zone for each kind of message, and counters of either
/// end of each.
struct LinkLayout {
  explicit LinkLayout(const LinkWords& words)
      : hidden_zone(kernels::hop_zone_bytes(words.rows)),
        row_counters(hidden_zone + kernels::hop_zone_bytes(words.hidden)),
        sent_counters(row_counters + kernels::hop_counter_bytes(words.rows)),
        received_counters(sent_counters + kernels::hop_counter_bytes(words.hidden)) {}

  int64_t hidden_zone;  ///< behind the rows'
  int64_t row_counters;
  int64_t sent_counters;
  int64_t received_counters;
};

std::byte* at(const LinkMember& member, int64_t offset) {
  return member.memory.as<std::byte>() + offset;
}

class CudaPassLink final : public PassLink {
 public:
  CudaPassLink(std::span<const LinkMember> members, size_t rank, const LinkWords& words,
               std::shared_ptr<AbortWord> abort)
      : backend_(static_cast<CudaBackend&>(*members[rank].backend)),
        words_(words),
        abort_(std::move(abort)) {
    const LinkLayout layout(words);
    const LinkMember& own = members[rank];
    const auto counters = [&](int64_t offset) {
      return reinterpret_cast<uint32_t*>(at(own, offset));
    };
    const bool leads = rank + 1 == members.size();
    rows_.abort = sent_.abort = received_.abort = abort_->word();
    rows_.epochs = counters(layout.row_counters);
    sent_.epochs = counters(layout.sent_counters);
    received_.epochs = counters(layout.received_counters);
    if (leads) {
      for (size_t other = 0; other < rank; ++other) {
        rows_.zones[rows_.num_zones++] = at(members[other], 0);
      }
    } else {
      rows_.zones[rows_.num_zones++] = at(own, 0);
      sent_.zones[sent_.num_zones++] = at(members[rank + 1], layout.hidden_zone);
    }
    received_.zones[received_.num_zones++] = at(own, layout.hidden_zone);
  }

  void share_rows(std::span<const TensorView> parts, TensorView copy, Stream& stream) override {
    kernels::HopArgs args = message(rows_, parts, words_.rows);
    args.copy = copy.as<uint32_t>();
    check(kernels::hop_send(args, backend_.launch(stream)), "hop_send");
  }
  void receive_rows(TensorView rows, Stream& stream) override {
    receive(rows_, std::span(&rows, 1), words_.rows, stream);
  }
  void send_hidden(std::span<const TensorView> parts, Stream& stream) override {
    check(kernels::hop_send(message(sent_, parts, words_.hidden), backend_.launch(stream)),
          "hop_send");
  }
  void receive_hidden(std::span<const TensorView> parts, Stream& stream) override {
    receive(received_, parts, words_.hidden, stream);
  }
  void abort() noexcept override { *abort_->word() = 1; }

 private:
  void receive(const kernels::HopArgs& from, std::span<const TensorView> parts, int64_t most,
               Stream& stream) {
    check(kernels::hop_receive(message(from, parts, most), backend_.launch(stream)), "hop_receive");
  }

  void check(cudaError_t status, const char* call) const {
    check_cuda(status, call, backend_.device().index);
  }

  static kernels::HopArgs message(kernels::HopArgs args, std::span<const TensorView> parts,
                                  int64_t most) {
    int64_t all = 0;
    bool whole = parts.size() <= static_cast<size_t>(kernels::kMaxHopParts);
    for (size_t i = 0; i < parts.size() && whole; ++i) {
      whole = parts[i].bytes() % sizeof(uint32_t) == 0;
      args.parts[i] = static_cast<uint32_t*>(parts[i].data());
      args.words[i] = static_cast<int64_t>(parts[i].bytes() / sizeof(uint32_t));
      all += args.words[i];
    }
    args.num_parts = static_cast<int>(parts.size());
    if (whole && all > 0 && all <= most) return args;
    throw ShapeError("pass link: a message of " + std::to_string(parts.size()) + " parts and " +
                     std::to_string(all) + " words, at most " + std::to_string(most) + " of " +
                     std::to_string(kernels::kMaxHopParts) + " parts of whole words are possible");
  }

  CudaBackend& backend_;
  const LinkWords words_;
  const std::shared_ptr<AbortWord> abort_;
  kernels::HopArgs rows_, sent_, received_;  ///< without parts
};

}  // namespace

std::vector<std::unique_ptr<PassLink>> link_ranks(std::span<const LinkMember> members,
                                                  const LinkWords& words) {
  std::vector<std::unique_ptr<PassLink>> links;
  const auto size = static_cast<int>(members.size());
  for (const LinkMember& member : members) {
    const int64_t bytes = link_memory_bytes(member.backend->device().kind, size, words);
    if (bytes == 0 || member.memory.bytes() < static_cast<size_t>(bytes)) return links;
  }
  for (const LinkMember& one : members) {
    for (const LinkMember& other : members) {
      if (one.backend != other.backend && !open_peers(*one.backend, *other.backend)) return links;
    }
  }
  for (const LinkMember& member : members) {
    const int device = member.backend->device().index;
    check_cuda(cudaSetDevice(device), "cudaSetDevice", device);
    check_cuda(cudaMemset(member.memory.data(), 0, member.memory.bytes()), "cudaMemset", device);
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize", device);
  }
  const auto abort = std::make_shared<AbortWord>(members.front().backend->device().index);
  for (size_t rank = 0; rank < members.size(); ++rank) {
    links.push_back(std::make_unique<CudaPassLink>(members, rank, words, abort));
  }
  return links;
}

}  // namespace tandem
