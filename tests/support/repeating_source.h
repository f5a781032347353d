#pragma once

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model/weight_source.h"

namespace tandem::test {

/// A checkpoint with fewer embeddings, which ids repeat in turn: with its tied head,
/// every row's largest logit stands at several ids.
class RepeatingSource final : public WeightSource {
 public:
  static constexpr int64_t kPeriod = 1000;

  explicit RepeatingSource(const std::filesystem::path& folder) : inner_(open_weights(folder)) {}

  std::string name() const override { return inner_->name(); }
  bool has(std::string_view tensor) const override { return inner_->has(tensor); }
  TensorInfo info(std::string_view tensor) const override { return inner_->info(tensor); }
  HostMatrix tensor(std::string_view tensor) override {
    HostMatrix matrix = inner_->tensor(tensor);
    if (tensor.find("embed_tokens") == std::string_view::npos) return matrix;
    const size_t row_bytes = static_cast<size_t>(matrix.row_stride) * size_of(matrix.dtype);
    repeated_.resize(static_cast<size_t>(matrix.rows) * row_bytes);
    for (int64_t row = 0; row < matrix.rows; ++row) {
      std::memcpy(repeated_.data() + static_cast<size_t>(row) * row_bytes,
                  static_cast<const std::byte*>(matrix.data) +
                      static_cast<size_t>(row % kPeriod) * row_bytes,
                  row_bytes);
    }
    matrix.data = repeated_.data();
    return matrix;
  }
  void done_with(std::string_view tensor) override { inner_->done_with(tensor); }

 private:
  std::unique_ptr<WeightSource> inner_;
  std::vector<std::byte> repeated_;
};

}  // namespace tandem::test
