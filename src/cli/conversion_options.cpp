#include "cli/conversion_options.h"

#include "tandem/error.h"

namespace tandem::cli {
namespace {

void override_draft(const char* option, const std::optional<std::string>& value, Config& config,
                    std::string DraftConfig::*field) {
  if (!value) return;
  if (!config.draft) {
    throw UsageError(std::string(option) + " is given, but no draft model; name one with --draft");
  }
  (*config.draft).*field = *value;
}

}  // namespace

void ConversionOptions::add_to(CLI::App& sub, const std::string& group) {
  const auto add = [&](const char* name, std::optional<std::string>& value, const char* type,
                       const char* help) {
    sub.add_option(name, value, help)->type_name(type)->group(group);
  };
  add("--quantization", quantization, "Q",
      "Convert the main model's matrices while loading: none, fp8 or int4");
  add("--draft-quantization", draft_quantization, "Q",
      "The same for the draft; the text stays the main model's");
  add("--expand", expand, "SIZE",
      "For measuring: run the main model's function in the shape of a 1B, 8B or 70B");
  add("--draft-expand", draft_expand, "SIZE", "The same for the draft");
}

void ConversionOptions::apply_to(Config& config) const {
  if (quantization) config.main.quantization = *quantization;
  if (expand) config.main.expand = *expand;
  override_draft("--draft-quantization", draft_quantization, config, &DraftConfig::quantization);
  override_draft("--draft-expand", draft_expand, config, &DraftConfig::expand);
}

}  // namespace tandem::cli
