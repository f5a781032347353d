#include "engine/stop_scanner.h"

#include <algorithm>

namespace tandem {

StopScanner::StopScanner(const std::vector<std::string>& stops) {
  for (const std::string& text : stops) {
    Pattern pattern{text, std::vector<size_t>(text.size() + 1, 0), 0};
    for (size_t length = 2, border = 0; length <= text.size(); ++length) {
      while (border > 0 && text[border] != text[length - 1]) border = pattern.fallback[border];
      if (text[border] == text[length - 1]) ++border;
      pattern.fallback[length] = border;
    }
    patterns_.push_back(std::move(pattern));
  }
}

void StopScanner::Pattern::advance(char byte) {
  while (matched > 0 && text[matched] != byte) matched = fallback[matched];
  if (text[matched] == byte) ++matched;
}

size_t StopScanner::longest_match() const {
  size_t longest = 0;
  for (const Pattern& pattern : patterns_) longest = std::max(longest, pattern.matched);
  return longest;
}

std::string StopScanner::push(std::string_view piece) {
  if (stopped_) return {};
  for (size_t i = 0; i < piece.size(); ++i) {
    size_t completed = 0;
    for (Pattern& pattern : patterns_) {
      pattern.advance(piece[i]);
      if (pattern.matched == pattern.text.size()) completed = std::max(completed, pattern.matched);
    }
    if (completed == 0) continue;
    stopped_ = true;
    std::string text = std::move(held_);
    text.append(piece.substr(0, i + 1));
    text.resize(text.size() - completed);
    held_.clear();
    return text;
  }
  std::string text = std::move(held_);
  text.append(piece);
  held_ = text.substr(text.size() - longest_match());
  text.resize(text.size() - held_.size());
  return text;
}

std::string StopScanner::finish() {
  std::string rest = std::move(held_);
  held_.clear();
  return rest;
}

}  // namespace tandem
