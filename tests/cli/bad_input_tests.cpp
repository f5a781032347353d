#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "cli/run_tandem.h"
#include "support/catch.h"

using namespace tandem::testing;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

constexpr int kUsage = 2;

/// Checks that the command fails with exit code 2, prints nothing on stdout and one clear line on
/// stderr, and returns it.
std::string refusal(const std::vector<std::string>& arguments, const std::string& input = {}) {
  const ProcessResult result = run_tandem(arguments, input);
  INFO("stderr: " << result.err);
  CHECK(result.exit_code == kUsage);
  CHECK(result.out.empty());
  CHECK(result.err.starts_with("tandem: error: "));
  CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
  CHECK(result.err.ends_with('\n'));
  return result.err;
}

std::string refusal_of_model(const std::string& folder) {
  return refusal({"generate", "--main", folder, "--prompt", "x"});
}

std::string refusal_of_demo(const std::vector<std::string>& options) {
  return refusal(generate_demo(options));
}

/// The refusal of a configuration whose sections are changed by `edit`.
std::string refusal_of_config(const std::function<void(json&)>& edit) {
  const TemporaryFolder folder;
  json config = {{"main", {{"model", demo_main().string()}}},
                 {"draft", {{"model", demo_draft().string()}}}};
  edit(config);
  const std::string file = (folder.path() / "pair.json").string();
  std::ofstream(file) << config;
  return refusal({"generate", "--config", file, "--prompt", "x"});
}

constexpr const char* kDraftWeights = "model.safetensors";

}  // namespace

TEST_CASE("Missing files") {
  CHECK_THAT(refusal({"generate", "--config", "nowhere.json", "--prompt", "x"}),
             ContainsText("nowhere.json: no such file"));
  CHECK_THAT(refusal_of_model("nowhere"), ContainsText("nowhere: no such folder"));
  CHECK_THAT(refusal({"generate", "--main", demo_main().string(), "--prompt-file", "nowhere.txt"}),
             ContainsText("nowhere.txt"));
  CHECK_THAT(refusal({"tokenize", "--model", "nowhere"}), ContainsText("nowhere"));
  CHECK_THAT(refusal({"logits", "--model", "nowhere", "--ids", "1"}), ContainsText("nowhere"));
  for (const std::string file : {"config.json", kDraftWeights, "tokenizer.json"}) {
    const ModelFolder model(demo_draft());
    model.remove(file);
    CHECK_THAT(refusal_of_model(model.string()), ContainsText(file));
  }
  const ModelFolder sharded(demo_main());
  sharded.remove("model-00002-of-00002.safetensors");
  CHECK_THAT(refusal_of_model(sharded.string()), ContainsText("model-00002-of-00002.safetensors"));
}

TEST_CASE("Truncated safetensors") {
  const ModelFolder model(demo_draft());
  SECTION("in the last tensor") {
    model.edit_bytes(kDraftWeights, [](std::string& bytes) { bytes.resize(bytes.size() - 1000); });
  }
  SECTION("in the header") {
    model.edit_bytes(kDraftWeights, [](std::string& bytes) { bytes.resize(100); });
  }
  SECTION("in the header's length") {
    model.edit_bytes(kDraftWeights, [](std::string& bytes) { bytes.resize(5); });
  }
  SECTION("to nothing") {
    model.edit_bytes(kDraftWeights, [](std::string& bytes) { bytes.clear(); });
  }
  CHECK_THAT(refusal_of_model(model.string()), ContainsText(kDraftWeights));
}

TEST_CASE("Overlapping safetensors") {
  const ModelFolder model(demo_draft());
  model.edit_header(kDraftWeights, [](json& header) {
    header["model.layers.1.self_attn.q_proj.weight"]["data_offsets"] =
        header["model.layers.0.self_attn.q_proj.weight"]["data_offsets"];
  });
  CHECK_THAT(refusal_of_model(model.string()),
             ContainsText("q_proj.weight") && ContainsText("overlap"));
}

TEST_CASE("A safetensors header that is larger than the file") {
  const ModelFolder model(demo_draft());
  model.edit_bytes(kDraftWeights, [](std::string& bytes) {
    bytes.replace(0, 8, std::string("\0\0\0\0\0\1\0\0", 8));
  });
  CHECK_THAT(refusal_of_model(model.string()),
             ContainsText(kDraftWeights) && ContainsText("header"));
}

TEST_CASE("A shape that contradicts config.json") {
  const ModelFolder model(demo_draft());
  model.edit_json("config.json", [](json& config) { config["vocab_size"] = 6145; });
  CHECK_THAT(refusal_of_model(model.string()), ContainsText("model.embed_tokens.weight") &&
                                                   ContainsText("6144") && ContainsText("6145"));
}

TEST_CASE("An unknown architecture lists the known ones") {
  const ModelFolder model(demo_draft());
  model.edit_json("config.json", [](json& config) {
    config["architectures"] = {"BertForMaskedLM"};
    config["model_type"] = "bert";
  });
  const std::string message = refusal_of_model(model.string());
  for (const char* known : {"BertForMaskedLM", "LlamaForCausalLM", "MistralForCausalLM",
                            "Qwen2ForCausalLM", "Qwen3ForCausalLM"}) {
    CHECK_THAT(message, ContainsText(known));
  }
}

TEST_CASE("Configurations with mistakes") {
  CHECK_THAT(refusal_of_config([](json& c) { c["speculation"]["methud"] = "none"; }),
             ContainsText("pair.json: unknown key \"speculation.methud\"") &&
                 ContainsText("\"speculation.method\""));
  CHECK_THAT(refusal_of_config([](json& c) { c["sampling"]["max_tokens"] = "many"; }),
             ContainsText(
                 "pair.json: \"sampling.max_tokens\" is \"many\" (a string); expected an integer"));
  CHECK_THAT(refusal_of_config([](json& c) { c["sampling"]["temperature"] = -0.1; }),
             ContainsText("pair.json: sampling.temperature is -0.1"));
  CHECK_THAT(refusal_of_config([](json& c) { c["sampling"]["top_p"] = 1.5; }),
             ContainsText("pair.json: sampling.top_p is 1.5; expected a number in (0, 1]"));
  CHECK_THAT(refusal_of_config([](json& c) { c.erase("draft"); }),
             ContainsText("pair.json") && ContainsText("no draft model is given"));
  CHECK_THAT(refusal_of_config([](json& c) { c["main"]["max_model_len"] = 4096; }),
             ContainsText("max_model_len") && ContainsText("4096") && ContainsText("2048"));
  CHECK_THAT(refusal_of_config([](json& c) { c["main"]["model"] = "nowhere"; }),
             ContainsText("nowhere"));
}

TEST_CASE("Sampling parameters out of range") {
  CHECK_THAT(refusal_of_demo({"--prompt", "x", "--temperature", "-1"}),
             ContainsText("temperature is -1; expected 0 (greedy) or a number in"));
  CHECK_THAT(refusal_of_demo({"--prompt", "x", "--temperature", "nan"}),
             ContainsText("temperature is nan"));
  for (const std::string temperature : {"1e-30", "101"}) {
    CHECK_THAT(refusal_of_demo({"--prompt", "x", "--temperature", temperature}),
               ContainsText("[0.001, 100]"));
  }
  for (const std::string penalty : {"0", "1e-38", "1e9"}) {
    CHECK_THAT(refusal_of_demo({"--prompt", "x", "--repetition-penalty", penalty}),
               ContainsText("repetition_penalty") && ContainsText("[0.01, 100]"));
  }
  for (const std::string top_p : {"0", "1.01", "-0.5"}) {
    CHECK_THAT(refusal_of_demo({"--prompt", "x", "--top-p", top_p}),
               ContainsText("top_p is " + top_p + "; expected a number in (0, 1]"));
  }
  CHECK_THAT(refusal_of_demo({"--prompt", "x", "--top-k", "-1"}), ContainsText("top_k"));
  CHECK_THAT(refusal_of_demo({"--prompt", "x", "--min-p", "2"}), ContainsText("min_p"));
  CHECK_THAT(refusal_of_demo({"--prompt", "x", "--max-tokens", "0"}), ContainsText("max_tokens"));
  CHECK_THAT(refusal_of_demo({"--prompt", "x", "--seed", "-1"}), ContainsText("--seed is '-1'"));
  CHECK_THAT(refusal_of_demo({"--prompt", "x", "--stop", ""}),
             ContainsText("stop is an empty string"));
  CHECK_THAT(refusal_of_demo({"--prompt", "x", "--n", "0"}), ContainsText("n is 0"));
  CHECK_THAT(refusal_of_demo({"--prompt", "x", "--num-speculative-tokens", "16"}),
             ContainsText("from 0 to 15"));
  CHECK_THAT(refusal_of_demo({"--prompt", "x", "--num-speculative-tokens", "x"}),
             ContainsText("'auto'"));
  CHECK_THAT(refusal_of_demo({"--prompt", "x", "--method", "magic"}), ContainsText("\"ngram\""));
  CHECK_THAT(refusal_of_demo({"--prompt", "x", "--rejection-sample-method", "hope"}),
             ContainsText("\"coupled\""));
  CHECK_THAT(refusal_of_demo({"--prompt", "x", "--device", "abacus"}), ContainsText("abacus"));
  CHECK_THAT(refusal_of_demo({"--prompt", "x", "--logprobs", "1000"}), ContainsText("logprobs"));
}

TEST_CASE("Acceptance that cannot be made up") {
  const auto refused = [](std::vector<std::string> options) {
    options.insert(options.end(), {"--prompt", "x"});
    return refusal_of_demo(options);
  };
  const std::string length = "--synthetic-acceptance-length",
                    rates = "--synthetic-acceptance-rates";
  for (const char* wrong : {"0.5", "nan", "17"}) {
    CHECK_THAT(refused({length, wrong}), ContainsText(length) && ContainsText("from 1 to K + 1"));
  }
  CHECK_THAT(refused({length, "4", "--num-speculative-tokens", "2"}),
             ContainsText("3 drafts a round, of which 2"));
  CHECK_THAT(refused({length, "2", rates, "1"}), ContainsText("excludes"));
  CHECK_THAT(refused({rates, "0.5,0.6"}), ContainsText("rates that rise"));
  CHECK_THAT(refused({rates, "1.5"}), ContainsText("from 0 to 1"));
  CHECK_THAT(refused({rates, "much"}), ContainsText("much"));
  CHECK_THAT(refused({length, "2", "--method", "none"}), ContainsText("something that drafts"));
  CHECK_THAT(refused({length, "2", "--num-speculative-tokens", "0"}),
             ContainsText("rounds that draft"));
  CHECK_THAT(refused({length, "2", "--stop", "x"}), ContainsText("stop strings"));
  CHECK_THAT(refused({length, "2", "--logprobs", "1", "--json"}), ContainsText("logprobs"));
}

TEST_CASE("Conversions that do not exist, or have nothing to convert") {
  const std::string prompt = "x", main = demo_main().string();
  CHECK_THAT(refusal_of_demo({"--quantization", "int8"}),
             ContainsText("main.quantization") && ContainsText("fp8"));
  CHECK_THAT(refusal_of_demo({"--draft-expand", "9B"}),
             ContainsText("draft.expand") && ContainsText("70B"));
  CHECK_THAT(
      refusal({"generate", "--main", main, "--draft-quantization", "fp8", "--prompt", prompt}),
      ContainsText("--draft-quantization") && ContainsText("--draft"));
  CHECK_THAT(refusal({"plan", "--main", main, "--draft-expand", "1B"}),
             ContainsText("--draft-expand"));
  CHECK_THAT(refusal({"logits", "--model", main, "--quantization", "int8", "--ids", "1"}),
             ContainsText("int8") && ContainsText("int4"));
  CHECK_THAT(refusal({"logits", "--model", main, "--expand", "9B", "--ids", "1"}),
             ContainsText("9B") && ContainsText("8B"));
}

TEST_CASE("Prompts that cannot be used") {
  CHECK_THAT(refusal_of_demo({"--prompt", ""}), ContainsText("the prompt is empty"));
  CHECK_THAT(refusal(generate_demo({"--prompt-file", "-"}), ""),
             ContainsText("the prompt is empty"));
  CHECK_THAT(refusal_of_demo({}), ContainsText("no prompt is given"));
  CHECK_THAT(refusal_of_demo({"--prompt", "ab\xff"}), ContainsText("not valid UTF-8 at byte 2"));
  CHECK_THAT(refusal_of_demo({"--prompt", "\xed\xa0\x80"}), ContainsText("UTF-8"));
  CHECK_THAT(refusal({"tokenize", "--model", demo_main().string()}, "a\xc0\x80"),
             ContainsText("UTF-8"));
  std::string longest;
  for (int i = 0; i < 3000; ++i) longest += " x = " + std::to_string(i);
  CHECK_THAT(refusal(generate_demo({"--prompt-file", "-"}), longest),
             ContainsText("tokens, the context 2048"));
  CHECK_THAT(refusal_of_demo({"--prompt", "one two three four five six", "--max-model-len", "4"}),
             ContainsText("the context 4: at most 3"));
}

TEST_CASE("A pair with different vocabularies is refused with the numbers") {
  const ModelFolder draft(demo_draft());
  // The ids of half of the longer tokens change places.
  draft.edit_json("tokenizer.json", [](json& tokenizer) {
    json& vocabulary = tokenizer["model"]["vocab"];
    std::map<int, std::string> by_id;
    for (const auto& [token, id] : vocabulary.items()) by_id[id.get<int>()] = token;
    const int last = by_id.rbegin()->first;
    for (int id = 1000; id < last; id += 4)
      std::swap(vocabulary[by_id[id]], vocabulary[by_id[id + 1]]);
  });
  const std::string message = refusal(
      {"generate", "--main", demo_main().string(), "--draft", draft.string(), "--prompt", "x"});
  CHECK_THAT(message, ContainsText("%") && ContainsText("different") &&
                          ContainsText("allow_vocabulary_mismatch"));

  const ProcessResult allowed =
      run_tandem({"generate", "--main", demo_main().string(), "--draft", draft.string(), "--prompt",
                  "def f(x):", "--max-tokens", "20", "--allow-vocabulary-mismatch"});
  CHECK(allowed.exit_code == 0);
  CHECK_THAT(allowed.err, ContainsText("tandem: warning: "));
  const ProcessResult plain = run_tandem(
      {"generate", "--main", demo_main().string(), "--prompt", "def f(x):", "--max-tokens", "20"});
  CHECK(allowed.out == plain.out);
}

TEST_CASE("Output that cannot be written is refused before anything is loaded") {
  const TemporaryFolder folder;
  CHECK_THAT(refusal_of_demo(
                 {"--prompt", "x", "--output", (folder.path() / "no/such/folder/text").string()}),
             ContainsText("cannot be written"));
  CHECK_THAT(refusal_of_demo({"--prompt", "x", "--output", folder.path().string()}),
             ContainsText("cannot be written"));
  // Nobody, root included, may make a file there.
  CHECK_THAT(refusal_of_demo({"--prompt", "x", "--output", "/proc/text"}),
             ContainsText("cannot be written"));
  const std::string kept = (folder.path() / "kept").string();
  std::ofstream(kept) << "what was there";
  const std::string fresh = (folder.path() / "fresh").string();
  for (const std::string& file : {kept, fresh}) {
    CHECK_THAT(refusal_of_demo({"--prompt", "x", "--output", file, "--n", "0"}),
               ContainsText("n is 0"));
    CHECK_THAT(refusal_of_demo({"--prompt", "one two three four five six", "--output", file,
                                "--max-model-len", "4"}),
               ContainsText("the context 4"));
  }
  std::string text;
  std::getline(std::ifstream(kept), text);
  CHECK(text == "what was there");
  CHECK_FALSE(fs::exists(fresh));
  CHECK(run_tandem(generate_demo({"--prompt", "x", "--max-tokens", "1", "--output", kept}))
            .exit_code == 0);
  text.clear();
  std::getline(std::ifstream(kept), text);
  CHECK(text.find("what was") == std::string::npos);
  const ProcessResult full =
      run_tandem(generate_demo({"--prompt", "x", "--max-tokens", "2", "--output", "/dev/full"}));
  CHECK(full.exit_code == 1);
  CHECK_THAT(full.err, ContainsText("/dev/full: writing failed"));
}

TEST_CASE("Command lines with mistakes") {
  CHECK_THAT(refusal({}), ContainsText("tandem --help"));
  CHECK_THAT(refusal({"generat"}), ContainsText("'generate'"));
  CHECK_THAT(refusal({"gen"}), ContainsText("the nearest known one is 'generate'"));
  CHECK_THAT(refusal({"run"}),
             ContainsText("the known ones are ") && ContainsText("plan, bench, devices"));
  CHECK_THAT(refusal({"generate", "--foo"}),
             ContainsText("--foo") && ContainsText("tandem generate --help"));
  CHECK_THAT(refusal({"generate"}), ContainsText("no model is given"));
  CHECK_THAT(refusal({"generate", "--main", "x", "--max-tokens", "many"}),
             ContainsText("--max-tokens"));
  CHECK_THAT(refusal({"generate", "--main"}), ContainsText("--main"));
  CHECK_THAT(refusal({"tokenize"}), ContainsText("--model"));
  CHECK_THAT(refusal({"tokenize", "--model", demo_main().string(), "--decode"}, "[0, 6144]"),
             ContainsText("token id 6144") && ContainsText("0 to 6143"));
  CHECK_THAT(refusal({"tokenize", "--model", demo_main().string(), "--decode"}, "1 2 three"),
             ContainsText("'three'"));
  CHECK_THAT(refusal({"logits", "--model", demo_draft().string(), "--ids", "1,x"}),
             ContainsText("'x'"));
  CHECK_THAT(refusal({"logits", "--model", demo_draft().string(), "--ids", ""}),
             ContainsText("no token ids"));
  CHECK_THAT(refusal({"logits", "--model", demo_draft().string(), "--ids", "6144"}),
             ContainsText("6144"));
  CHECK_THAT(refusal({"logits", "--model", demo_draft().string(), "--ids", "1", "--top", "-1"}),
             ContainsText("-1"));
}
