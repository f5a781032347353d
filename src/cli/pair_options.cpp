#include "cli/pair_options.h"

#include "tandem/error.h"

namespace tandem::cli {

void PairOptions::add_to(CLI::App& sub, const std::string& group) {
  sub.add_option("--config", config, "Configuration file; the other options override it")
      ->type_name("FILE")
      ->group(group);
  sub.add_option("--main", main_model, "Folder of the main model")->type_name("DIR")->group(group);
  sub.add_option("--draft", draft_model, "Folder of the draft model; sets the method draft_model")
      ->type_name("DIR")
      ->group(group);
  sub.add_option("--max-model-len", max_model_len, "Context in tokens, prompt and output together")
      ->type_name("N")
      ->group(group);
  conversions.add_to(sub, group);
}

Config PairOptions::read() const {
  if (!config && !main_model) {
    throw UsageError(
        "no model is given; name a configuration with --config FILE or a model with --main DIR");
  }
  Config made;
  if (config) {
    made = Config::from_file(*config);
    made.source += " with the options of the command line";
  } else {
    made.source = "command line";
    if (!draft_model) made.speculation.method = "none";
  }
  if (main_model) made.main.model = *main_model;
  if (draft_model) {
    if (!made.draft) made.draft.emplace();
    made.draft->model = *draft_model;
    made.speculation.method = "draft_model";
  }
  conversions.apply_to(made);
  if (max_model_len) made.main.max_model_len = max_model_len;
  return made;
}

}  // namespace tandem::cli
