#pragma once

#include <string>

#include "tandem/engine.h"

namespace tandem {

/// Whether made-up acceptance and the rest of a request go together; nothing to check without it.
/// @param method the engine's drafter, as the configuration names it
/// @param most_drafts the largest K that a round of the request may have
/// @throws UsageError that says what does not
void check_synthetic_acceptance(const Request& request, const std::string& method, int most_drafts);

}  // namespace tandem
