#include "bench/charts.h"

#include <algorithm>

#include "bench/report_text.h"
#include "bench/svg.h"

namespace tandem::bench {
namespace {

constexpr double kWidth = 600, kHeight = 330;
constexpr double kTop = 14, kBottom = 48, kRight = 16, kLeft = 58;
constexpr double kRowLeft = 176;  ///< room for the names of rows
constexpr double kRowHeight = 30;
constexpr double kMark = 4, kCap = 4;
constexpr double kTextDrop = 4;  ///< from the middle of a line of text to its base
constexpr double kTickGap = 8, kNameGap = 10;
constexpr int kMostTicks = 6;
constexpr size_t kLongestRowName = 26;

std::string colour(const char* prefix, int index) {
  return prefix + std::to_string(index % kSeriesColours);
}

std::string tip_of(const std::string& name, const Estimate& estimate) {
  std::string text = name + ": " + number("%.3g", estimate.value);
  if (estimate.interval) {
    text += " (" + number("%.3g", estimate.interval->first) + " to " +
            number("%.3g", estimate.interval->second) + ")";
  }
  return text;
}

std::string shortened(const std::string& name) {
  if (name.size() <= kLongestRowName) return name;
  size_t end = kLongestRowName - 1;
  while (end > 0 && (static_cast<unsigned char>(name[end]) & 0xC0) == 0x80) --end;
  return name.substr(0, end) + "…";
}

/// A linear map of values onto pixels.
struct Scale {
  double low, high, from, to;
  double operator()(double value) const {
    return from + (std::clamp(value, low, high) - low) / (high - low) * (to - from);
  }
};

/// Vertical grid lines with their numbers below, and the axis's name.
Scale draw_x_axis(Svg& svg, double high, double left, double bottom, const std::string& name) {
  const std::vector<double> ticks = round_ticks(0, high, kMostTicks);
  const Scale scale{0, ticks.back(), left, kWidth - kRight};
  for (const double tick : ticks) {
    svg.line(scale(tick), kTop, scale(tick), bottom, tick == 0 ? "axis" : "grid");
    svg.text(scale(tick), bottom + 2 * kTickGap, number("%.6g", tick), "middle");
  }
  svg.text((left + kWidth - kRight) / 2, bottom + 2 * kTickGap + 2 * kNameGap, name, "middle",
           "name");
  return scale;
}

}  // namespace

std::string draw(const PointChart& chart) {
  Svg svg(kWidth, kHeight, chart.title);
  const double bottom = kHeight - kBottom;
  const std::vector<double> ticks = round_ticks(chart.y_low, chart.y_high, kMostTicks);
  const Scale y{ticks.front(), ticks.back(), bottom, kTop};
  double first = 1e9, last = 0;
  for (const PointSeries& series : chart.series) {
    for (const auto& point : series.points) {
      first = std::min(first, point.first);
      last = std::max(last, point.first);
    }
  }
  constexpr double kMargin = 0.35;  // of a step, beside the outermost points
  const Scale x{std::min(first, last) - kMargin, last + kMargin, kLeft, kWidth - kRight};
  for (const double tick : ticks) {
    svg.line(kLeft, y(tick), kWidth - kRight, y(tick), tick == ticks.front() ? "axis" : "grid");
    svg.text(kLeft - kTickGap, y(tick) + kTextDrop, number(chart.y_format, tick), "end");
  }
  for (double tick = first; tick <= last; tick += 1) {
    svg.text(x(tick), bottom + 2 * kTickGap, number("%.0f", tick), "middle");
  }
  svg.text((kLeft + kWidth - kRight) / 2, bottom + 2 * kTickGap + 2 * kNameGap, chart.x_name,
           "middle", "name");
  for (const PointSeries& series : chart.series) {
    std::vector<std::pair<double, double>> line;
    for (const auto& [at, estimate] : series.points) line.emplace_back(x(at), y(estimate.value));
    svg.polyline(line, "line " + series.style + " " + colour("s", series.colour));
    if (!series.marks) continue;
    for (const auto& [at, estimate] : series.points) {
      const std::string stroke = "whisker " + colour("s", series.colour);
      if (estimate.interval) {
        const double low = y(estimate.interval->first), high = y(estimate.interval->second);
        svg.line(x(at), low, x(at), high, stroke);
        svg.line(x(at) - kCap, low, x(at) + kCap, low, stroke);
        svg.line(x(at) - kCap, high, x(at) + kCap, high, stroke);
      }
      svg.circle(x(at), y(estimate.value), kMark, colour("f", series.colour),
                 tip_of(series.name + ", " + number("%.0f", at), estimate));
    }
  }
  return svg.finish();
}

std::string draw(const DotChart& chart) {
  const double row_height = std::max(kRowHeight * 0.8, 10.0 * chart.slots + 8);
  const double bottom = kTop + row_height * static_cast<double>(chart.rows.size());
  Svg svg(kWidth, bottom + kBottom, chart.title);
  const Scale x = draw_x_axis(svg, chart.x_high, kRowLeft, bottom, chart.x_name);
  for (size_t row = 0; row < chart.rows.size(); ++row) {
    const double top = kTop + row_height * static_cast<double>(row);
    if (row % 2 == 1) svg.rect(0, top, kWidth - kRight, row_height, "band");
    svg.text(kRowLeft - kTickGap, top + row_height / 2 + kTextDrop, shortened(chart.rows[row]),
             "end");
  }
  for (const DotChart::Dot& dot : chart.dots) {
    const double step = row_height / (chart.slots + 1);
    const double y = kTop + row_height * static_cast<double>(dot.row) + step * (dot.slot + 1);
    if (dot.value.interval) {
      const std::string stroke = "whisker " + colour("s", dot.colour);
      const double low = x(dot.value.interval->first), high = x(dot.value.interval->second);
      svg.line(low, y, high, y, stroke);
      svg.line(low, y - kCap, low, y + kCap, stroke);
      svg.line(high, y - kCap, high, y + kCap, stroke);
    }
    svg.circle(x(dot.value.value), y, kMark, colour("f", dot.colour),
               tip_of(chart.rows[dot.row], dot.value));
  }
  return svg.finish();
}

std::string draw(const StackChart& chart) {
  constexpr double kGap = 5;
  const double bottom = kTop + kRowHeight * static_cast<double>(chart.rows.size());
  Svg svg(kWidth, bottom + kBottom, chart.title);
  double high = 0;
  for (const auto& row : chart.values) {
    double sum = 0;
    for (const double value : row) sum += value;
    high = std::max(high, sum);
  }
  const Scale x = draw_x_axis(svg, high, kRowLeft, bottom, chart.x_name);
  for (size_t row = 0; row < chart.rows.size(); ++row) {
    const double top = kTop + kRowHeight * static_cast<double>(row);
    svg.text(kRowLeft - kTickGap, top + kRowHeight / 2 + kTextDrop, shortened(chart.rows[row]),
             "end");
    double sum = 0;
    for (size_t part = 0; part < chart.parts.size(); ++part) {
      const double value = chart.values[row][part];
      svg.rect(x(sum), top + kGap, x(sum + value) - x(sum), kRowHeight - 2 * kGap,
               colour("f", static_cast<int>(part)),
               chart.rows[row] + ", " + chart.parts[part] + ": " + number("%.4g", value));
      sum += value;
    }
  }
  return svg.finish();
}

std::string draw_legend(const std::vector<LegendEntry>& entries) {
  constexpr double kLength = 26, kThickness = 12, kMiddle = kThickness / 2;
  std::string out = "<ul class=\"legend\">";
  for (const LegendEntry& entry : entries) {
    Svg sample(kLength, kThickness, "");
    if (entry.style == "block") {
      sample.rect(kThickness / 2, 0, kThickness, kThickness, colour("f", entry.colour));
    } else {
      sample.line(0, kMiddle, kLength, kMiddle,
                  "line " + entry.style + " " + colour("s", entry.colour));
    }
    out += "<li>" + sample.finish() + escape_html(entry.name) + "</li>";
  }
  return out + "</ul>";
}

}  // namespace tandem::bench
