#include "spec/vocabulary_agreement.h"

#include <algorithm>
#include <cstdio>

namespace tandem {
namespace {

/// Bytes for people: printable ASCII as it is, the rest as \xNN; long ones cut.
std::string quoted(const std::string& bytes) {
  constexpr size_t kLongest = 24;
  std::string text = "\"";
  for (size_t i = 0; i < std::min(bytes.size(), kLongest); ++i) {
    const auto byte = static_cast<unsigned char>(bytes[i]);
    if (byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\') {
      text += bytes[i];
      continue;
    }
    char escaped[5];
    std::snprintf(escaped, sizeof(escaped), "\\x%02x", byte);
    text += escaped;
  }
  return text + (bytes.size() > kLongest ? "…\"" : "\"");
}

}  // namespace

double VocabularyAgreement::fraction() const {
  const int64_t all = same + different + missing;
  return all == 0 ? 1.0 : static_cast<double>(same) / static_cast<double>(all);
}

VocabularyAgreement compare_vocabularies(std::span<const std::optional<std::string>> main,
                                         std::span<const std::optional<std::string>> draft) {
  VocabularyAgreement result;
  result.allowed.assign(main.size(), 0);
  for (size_t id = 0; id < std::max(main.size(), draft.size()); ++id) {
    const bool in_main = id < main.size() && main[id].has_value();
    const bool in_draft = id < draft.size() && draft[id].has_value();
    if (in_main && in_draft && *main[id] == *draft[id]) {
      ++result.same;
      result.allowed[id] = 1;
    } else if (in_main && in_draft) {
      ++result.different;
      if (result.example.empty()) {
        result.example = "id " + std::to_string(id) + " is " + quoted(*main[id]) +
                         " to the main model and " + quoted(*draft[id]) + " to the draft";
      }
    } else if (in_main) {
      ++result.missing;
    } else if (in_draft) {
      ++result.extra;
    }
  }
  return result;
}

std::string vocabulary_refusal(const VocabularyAgreement& agreement) {
  if (agreement.fraction() >= kMinVocabularyAgreement) return {};
  char percent[32];
  std::snprintf(percent, sizeof(percent), "%.2f", 100 * agreement.fraction());
  std::string text = "the draft's vocabulary agrees with the main model's in only " +
                     std::string(percent) + " % of the ids (" + std::to_string(agreement.same) +
                     " same, " + std::to_string(agreement.different) + " different, " +
                     std::to_string(agreement.missing) + " missing in the draft, " +
                     std::to_string(agreement.extra) + " only there";
  if (!agreement.example.empty()) text += "; " + agreement.example;
  return text + "); use a draft of the same tokenizer, or set " +
         "\"allow_vocabulary_mismatch\": true";
}

}  // namespace tandem
