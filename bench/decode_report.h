#pragma once

#include <string>
#include <vector>

#include "decode_measure.h"

namespace tandem::bench {

/// One K with one draft, over all prompts and repetitions.
struct SpeculativeSeries {
  int draft_length = 0;
  DecodeRun run;
  std::vector<double> ratios;  ///< to plain decoding of the same prompt in the same repetition
  bool same_text = true;
};

/// The round at one K, and what of it is neither model's forward alone.
struct RoundOverhead {
  const char* rule = "greedy";
  int draft_length = 0;
  double round_seconds = 0;
  double forward_seconds = 0;
  double share() const { return (round_seconds - forward_seconds) / round_seconds; }
};

/// One precision of the draft.
struct DraftReport {
  std::string quantization;
  double load_seconds = 0;
  double bytes_ratio = 0;            ///< b: the draft's bytes per pass over the main model's
  std::vector<double> pass_seconds;  ///< by rows
  DecodeRun plain;                   ///< interleaved with what follows
  std::vector<SpeculativeSeries> series;
  std::vector<RoundOverhead> overheads;
};

/// Everything a run of the program measured.
struct DecodeReport {
  std::string title;
  std::string device;
  double load_seconds = 0;
  double read_bandwidth = 0;              ///< bytes a second; 0 where it is not measured
  double main_bytes = 0;                  ///< per pass
  std::vector<double> main_pass_seconds;  ///< by rows
  DecodeRun plain;                        ///< without a draft; unused with drafts
  std::vector<DraftReport> drafts;

  double v(int draft_length) const;          ///< a verification over a plain pass
  double c(const DraftReport& draft) const;  ///< a draft step over a plain pass
  /// E / (v + K c)
  double predicted(const DraftReport& draft, const SpeculativeSeries& series) const;
  /// E / (1 + K b)
  static double bound(const DraftReport& draft, const SpeculativeSeries& series);
  /// Measured: time of a token, plain over speculative, over all texts.
  static double speedup(const DraftReport& draft, const SpeculativeSeries& series);
  bool same_text() const;
};

void print_tables(const DecodeReport& report);
std::string to_json(const DecodeReport& report);

}  // namespace tandem::bench
