#pragma once

#include <cstdint>

namespace tandem {

/// What the leader tells the other ranks of a model to do. Plain numbers, so that it can also be
/// sent to another process.
struct RankCommand {
  enum class Kind : int32_t {
    kReserve,         ///< a: sequence, b: tokens
    kTruncate,        ///< a: sequence, b: tokens
    kFork,            ///< a: from, b: to, c: tokens
    kForward,         ///< a: rows, b: first row with logits
    kArgmax,          ///< the same, of whose logits only the largest are wanted
    kCaptureForward,  ///< as kForward, captured and kept under the number c
    kCaptureArgmax,   ///< as kArgmax, likewise
    kLaunch,          ///< c: what was captured under this number
    kForget,          ///< c: the number, which may be used again
    kStop,            ///< the model is no longer needed
  };
  Kind kind = Kind::kForward;
  int32_t a = 0;
  int32_t b = 0;
  int32_t c = 0;
};

}  // namespace tandem
