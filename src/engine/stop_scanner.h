#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

/// Looks for stop strings in a text that arrives in pieces, and holds back what could still become
/// one.
///
/// The text ends before the stop string that is *completed* first; of several completed by the same
/// byte, before the longest. So the result depends on the text alone, not on how it was cut into
/// tokens. Every byte is looked at once per stop string (Knuth, Morris, Pratt 1977). Pieces must
/// end at character boundaries; so does then what is returned.
class StopScanner {
 public:
  /// @param stops none empty; an empty list never stops
  explicit StopScanner(const std::vector<std::string>& stops);

  /// Takes the next piece and returns the text that became final. Returns nothing more once
  /// `stopped`.
  std::string push(std::string_view piece);
  /// The text ends here: returns what was held back.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  struct Pattern {
    std::string text;
    std::vector<size_t>
        fallback;        ///< [n]: length of the longest proper border of the first n bytes
    size_t matched = 0;  ///< bytes of `text` that the input ends with
    void advance(char byte);
  };
  size_t longest_match() const;

  std::vector<Pattern> patterns_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace tandem
