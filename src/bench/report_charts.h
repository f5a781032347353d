#pragma once

#include <string>

#include "bench/report.h"

namespace tandem::bench {

/// The pictures of report.html, each a <figure>; empty where nothing was measured that it shows.
std::string speedup_figure(const Report& report);
std::string position_figure(const Report& report);
std::string category_figure(const Report& report);
std::string phase_figure(const Report& report);
std::string length_figure(const Report& report);

}  // namespace tandem::bench
