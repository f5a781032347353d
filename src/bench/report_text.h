#pragma once

#include <string>

#include "bench/report.h"

namespace tandem::bench {

inline constexpr double kPercent = 100;
inline constexpr double kMilliseconds = 1e3;

/// snprintf of one number.
std::string number(const char* format, double value);
/// "0.72 ± 0.03": the value and half the width of its interval, where there is one.
std::string with_interval(const char* format, const Estimate& estimate);
/// Milliseconds that a phase took for each generated token.
std::string per_token(double seconds, const Summary& summary);
double milliseconds_per_token(double seconds, const Summary& summary);

/// "+3.1 %": by how much the prediction exceeds the measurement; empty where there is none.
std::string difference(const WhatIf::Row& row);

/// "demo · draft_model · main + draft on cpu:0 …".
std::string heading(const PairReport& pair);
/// The drafting setting with the largest ratio to plain; null when none was measured.
const SettingReport* fastest(const PairReport& pair);

}  // namespace tandem::bench
