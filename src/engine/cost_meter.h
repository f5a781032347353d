#pragma once

#include <functional>

#include "spec/speculative_decoder.h"
#include "tandem/speedup.h"

namespace tandem {

/// Measures what rounds of 0 … max_drafts drafts cost: rounds of an arbitrary text, every K in
/// turn, again and again for about half a second and at least twice; medians. Verification
/// takes what the clock on the wall shows beyond drafting, so that it holds what a round costs
/// besides its passes; plain steps count behind others of their kind. A pass over more tokens never
/// counts less than one over fewer, as noise alone would have it. A drafter that proposes nothing
/// for that text costs nothing.
///
/// Ends the decoder's text.
/// @param max_positions of the main model: widths that do not fit it take the last one's cost
/// @param cancelled asked between rounds; true ends the measurement with what there is
CostTable measure_costs(SpeculativeDecoder& decoder, int max_positions, int max_drafts,
                        const std::function<bool()>& cancelled);

}  // namespace tandem
