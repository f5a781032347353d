#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace tandem {

/// How far a draft's vocabulary means what the main model's means, id by id and byte by byte.
struct VocabularyAgreement {
  int64_t same = 0;              ///< ids with the same bytes in both
  int64_t different = 0;         ///< ids that both have, with different bytes
  int64_t missing = 0;           ///< ids that the main model has and the draft has not
  int64_t extra = 0;             ///< ids that the draft has and the main model has not
  std::vector<uint8_t> allowed;  ///< (main ids) 1 where the draft may propose the id
  std::string example;  ///< the first id that differs and what it means to either; may be empty

  /// same / all ids that the main model has; 1 when it has none.
  double fraction() const;
};

/// Below this share of common ids a pair is refused unless the configuration allows it.
inline constexpr double kMinVocabularyAgreement = 0.95;

/// Compares the bytes of each id; nullopt is an id without a meaning, such as padding.
VocabularyAgreement compare_vocabularies(std::span<const std::optional<std::string>> main,
                                         std::span<const std::optional<std::string>> draft);

/// Why a pair below `kMinVocabularyAgreement` is refused, with the numbers and the remedy, in one
/// line; empty when there is no reason to refuse.
std::string vocabulary_refusal(const VocabularyAgreement& agreement);

}  // namespace tandem
