#pragma once

#include <memory>

#include "backend/backend.h"
#include "backend/peer_exchange.h"
#include "comm/communicator.h"
#include "core/tensor_view.h"

namespace tandem {

/// Brings together what the ranks of a tensor split computed.
///
/// Up to kGatheredRows rows, those of a decoding round, the terms are added up in rank order, so
/// that a row has the same bits whatever rows travel with it (DESIGN 4): through the devices' own
/// memory, or gathered by the communicator and added here; the bits are the same. Wider passes
/// leave the order to the communicator.
class RankSum {
 public:
  static constexpr int kGatheredRows = 16;

  /// @param gathered    (ranks * min(max_rows, kGatheredRows), hidden) f32
  /// @param peer_memory for `PeerMember`; may be empty
  RankSum(Backend& backend, Communicator& communicator, TensorView gathered, TensorView peer_memory)
      : backend_(backend),
        communicator_(communicator),
        gathered_(gathered),
        peer_memory_(peer_memory) {}

  /// out += the sum of every rank's terms. Both (rows, hidden) f32; the terms are overwritten.
  void add(TensorView terms, TensorView out, Stream& stream);
  /// `add` to hidden, then normed = its RMS norm for `Backend::matmul_normed`.
  void add_norm(TensorView terms, TensorView hidden, TensorView norm_weight,
                const NormedRows& normed, Stream& stream);
  /// ids[r] = what `Backend::join_argmax` gives of every rank's choices at row r; null where they
  /// are not wanted.              choices (rows, 2) i32, gathered (ranks, rows, 2), to work in
  void join_argmax(TensorView choices, TensorView gathered, int32_t* ids, Stream& stream);
  /// Replaces values of 4 bytes by the root's.
  void broadcast(TensorView values, int root, Stream& stream);

  PeerMember peer_member() const { return {&backend_, peer_memory_}; }
  /// Words of the largest sum that is added up in rank order.
  int64_t max_words() const { return gathered_.count() / communicator_.size(); }
  /// From here on through the devices' memory; null: through the communicator alone.
  void use(PeerExchange* peers) { peers_ = peers; }

  /// Seconds that one `add` of a row takes in a captured run of many, this way: what `add_norm`
  /// does besides is as much either way. Every rank calls it at the same time; overwrites `terms`
  /// and `out`.
  double measure(TensorView terms, TensorView out, Stream& stream);

 private:
  Backend& backend_;
  Communicator& communicator_;
  TensorView gathered_;
  TensorView peer_memory_;
  PeerExchange* peers_ = nullptr;
};

}  // namespace tandem
