#pragma once

#include <cstdint>
#include <vector>

#include "tokenizer/json_node.h"

namespace tandem {

/// The tokens that a template puts around a single text.
struct PostProcessor {
  std::vector<int32_t> prefix;
  std::vector<int32_t> suffix;
};

/// Reads tokenizer.json's "post_processor" (null: nothing is added). Known: TemplateProcessing,
/// ByteLevel (which changes offsets alone), and a Sequence with at most one template. @throws
/// ModelError
PostProcessor parse_post_processor(const JsonNode& node);

}  // namespace tandem
