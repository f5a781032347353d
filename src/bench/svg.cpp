#include "bench/svg.h"

#include <cmath>
#include <cstdio>

namespace tandem::bench {
namespace {

std::string attribute(const char* name, double value) {
  char text[64];
  std::snprintf(text, sizeof text, " %s=\"%.1f\"", name, value);
  return text;
}

std::string style_class(std::string_view style) { return " class=\"" + std::string(style) + "\""; }

/// A shape's end: with a text that browsers show beside the pointer, if there is one.
std::string end_of(const char* shape, std::string_view tip) {
  if (tip.empty()) return "/>";
  return "><title>" + escape_html(tip) + "</title></" + shape + ">";
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

Svg::Svg(double width, double height, std::string_view title) {
  char box[96];
  std::snprintf(box, sizeof box, "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"", width,
                height);
  out_ = box + escape_html(title) + "\">";
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view style) {
  out_ += "<line" + attribute("x1", x1) + attribute("y1", y1) + attribute("x2", x2) +
          attribute("y2", y2) + style_class(style) + "/>";
}

void Svg::circle(double x, double y, double radius, std::string_view style, std::string_view tip) {
  out_ += "<circle" + attribute("cx", x) + attribute("cy", y) + attribute("r", radius) +
          style_class(style) + end_of("circle", tip);
}

void Svg::rect(double x, double y, double width, double height, std::string_view style,
               std::string_view tip) {
  out_ += "<rect" + attribute("x", x) + attribute("y", y) + attribute("width", width) +
          attribute("height", height) + style_class(style) + end_of("rect", tip);
}

void Svg::polyline(const std::vector<std::pair<double, double>>& points, std::string_view style) {
  out_ += "<polyline points=\"";
  for (const auto& [x, y] : points) {
    char text[48];
    std::snprintf(text, sizeof text, "%.1f,%.1f ", x, y);
    out_ += text;
  }
  out_ += "\"" + style_class(style) + "/>";
}

void Svg::text(double x, double y, std::string_view text, std::string_view anchor,
               std::string_view style) {
  out_ += "<text" + attribute("x", x) + attribute("y", y) + " text-anchor=\"" +
          std::string(anchor) + "\"" + style_class(style) + ">" + escape_html(text) + "</text>";
}

std::string Svg::finish() { return std::move(out_) + "</svg>"; }

std::vector<double> round_ticks(double low, double high, int most) {
  if (!(high > low)) high = low + 1;
  const double raw = (high - low) / most;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0}) {
    if (factor * power >= raw) step = factor * power;
  }
  std::vector<double> ticks;
  for (auto i = static_cast<int64_t>(std::floor(low / step));; ++i) {
    ticks.push_back(static_cast<double>(i) * step);
    if (ticks.back() >= high) return ticks;
  }
}

}  // namespace tandem::bench
