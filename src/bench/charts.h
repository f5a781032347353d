#pragma once

#include <string>
#include <utility>
#include <vector>

#include "bench/bootstrap.h"

namespace tandem::bench {

/// How many colours the style sheet has; a picture's further series begin again at the first.
inline constexpr int kSeriesColours = 6;

/// One entry of a legend. @param style "solid", "dashed", "dotted" or "block"
struct LegendEntry {
  std::string name;
  int colour = 0;
  std::string style = "solid";
};

/// Points of one colour over whole numbers.
struct PointSeries {
  std::string name;
  int colour = 0;
  std::string style = "solid";  ///< of the line
  bool marks = true;            ///< a dot for each point, with its interval
  std::vector<std::pair<double, Estimate>> points;
};

/// Points and lines over whole numbers.
struct PointChart {
  std::string title, x_name, y_name;
  double y_low = 0, y_high = 1;  ///< widened to round numbers
  const char* y_format = "%.1f";
  std::vector<PointSeries> series;
};
std::string draw(const PointChart& chart);

/// Rows of dots with their intervals, several series a row.
struct DotChart {
  std::string title, x_name;
  double x_high = 1;
  std::vector<std::string> rows;
  struct Dot {
    size_t row = 0;
    int colour = 0;
    int slot = 0;  ///< place among the dots of a row
    Estimate value;
  };
  int slots = 1;
  std::vector<Dot> dots;
};
std::string draw(const DotChart& chart);

/// Rows of stacked blocks.
struct StackChart {
  std::string title, x_name;
  std::vector<std::string> rows;
  std::vector<std::string> parts;           ///< names; part i has colour i
  std::vector<std::vector<double>> values;  ///< [row][part]
};
std::string draw(const StackChart& chart);

std::string draw_legend(const std::vector<LegendEntry>& entries);

}  // namespace tandem::bench
