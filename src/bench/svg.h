#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem::bench {

/// Text with the characters that HTML and SVG reserve written as entities.
std::string escape_html(std::string_view text);

/// A picture made of simple shapes. Colours and fonts come from the page's style sheet, by class,
/// so that one picture serves light and dark pages. Coordinates in px, y downwards.
class Svg {
 public:
  Svg(double width, double height, std::string_view title);

  void line(double x1, double y1, double x2, double y2, std::string_view style);
  void circle(double x, double y, double radius, std::string_view style, std::string_view tip = {});
  void rect(double x, double y, double width, double height, std::string_view style,
            std::string_view tip = {});
  void polyline(const std::vector<std::pair<double, double>>& points, std::string_view style);
  /// @param anchor "start", "middle" or "end"
  void text(double x, double y, std::string_view text, std::string_view anchor,
            std::string_view style = "tick");
  std::string finish();

 private:
  std::string out_;
};

/// Round numbers (1, 2 or 5 times a power of ten apart) that cover [low, high]; at most `most` + 2.
std::vector<double> round_ticks(double low, double high, int most);

}  // namespace tandem::bench
