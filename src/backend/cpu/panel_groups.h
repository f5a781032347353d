#pragma once

#include <cstdint>

namespace tandem {

// How the panels of a weight are dealt out to threads and laid side by side. Functions here are
// static on purpose: the kernels' files, compiled for more instructions than the machine may have,
// must not share code with others.

/// Panels that one tile of a matrix product takes at most; even in paired weights.
inline constexpr int64_t kGroupPanels = 5;
inline constexpr int64_t kPairedGroupPanels = 4;

/// Panels [first, first + count) of a segment, whose lines are interleaved in memory: line 0 of
/// every panel, line 1 of every panel, … A thread's groups follow each other, so that it reads its
/// share of a weight as one stream.
struct PanelGroup {
  int64_t first = 0;
  int64_t count = 0;
};

/// The group that holds `panel` where a thread's share is [begin, end): the share is cut into the
/// fewest groups, of even sizes, the larger ones first.
static constexpr PanelGroup panel_group(int64_t begin, int64_t end, bool paired, int64_t panel) {
  const int64_t unit = paired ? 2 : 1;
  const int64_t limit = (paired ? kPairedGroupPanels : kGroupPanels) / unit;
  const int64_t units = (end - begin) / unit;
  const int64_t groups = (units + limit - 1) / limit;
  const int64_t small = units / groups, large_groups = units % groups;
  const int64_t in_large = large_groups * (small + 1);
  const int64_t index = (panel - begin) / unit;
  const int64_t size = index < in_large ? small + 1 : small;
  const int64_t base = index < in_large ? 0 : in_large;
  return {begin + (base + (index - base) / size * size) * unit, size * unit};
}

}  // namespace tandem
