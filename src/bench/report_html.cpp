#include "bench/report.h"
namespace tandem::bench { std::string report_html(const Report&) { return ""; } }
