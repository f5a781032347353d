#include <atomic>
#include <future>
#include <limits>
#include <thread>

#include "backend/backend.h"
#include "core/text.h"
#include "support/catch.h"
#include "support/model_folder.h"
#include "support/sanitized.h"
#include "tandem/tandem.h"

using namespace tandem;
using namespace tandem::testing;
using nlohmann::json;

namespace {

const char* const kPrompt = "def fibonacci(n):\n    if n";

Config demo_config() {
  Config config;
  config.main.model = demo_main();
  config.draft.emplace();
  config.draft->model = demo_draft();
  config.speculation.cost_table = demo_cost_table();
  return config;
}

Engine& demo_engine() {
  static const std::unique_ptr<Engine> engine = Engine::from_config(demo_config());
  return *engine;
}

SamplingParams greedy(int max_tokens) {
  SamplingParams params;
  params.max_tokens = max_tokens;
  return params;
}

SamplingParams sampled(int max_tokens, uint64_t seed) {
  SamplingParams params = greedy(max_tokens);
  params.temperature = 1;
  params.seed = seed;
  return params;
}

Request request_of(const std::string& prompt, const SamplingParams& params) {
  Request request;
  request.prompt = prompt;
  request.params = params;
  return request;
}

Completion generate(Engine& engine, const SamplingParams& params,
                    std::optional<int> draft_tokens = {}) {
  Request request = request_of(kPrompt, params);
  request.num_speculative_tokens = draft_tokens;
  return engine.submit(request).wait().front();
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("The engine tells what it loaded") {
  const EngineInfo& info = demo_engine().info();
  CHECK(info.max_model_len == 2048);
  CHECK(info.draft_max_model_len == 2048);
  CHECK(info.num_speculative_tokens == Request::kAuto);
  CHECK(info.max_speculative_tokens == 8);
  CHECK(info.vocabulary_agreement == 1.0);
  CHECK(info.warnings.empty());
  const bool has_gpu = list_device_ids().front().kind == DeviceKind::kCuda;
  CHECK_THAT(info.device, ContainsText(has_gpu ? "cuda:" : "cpu:0"));
}

TEST_CASE("Text comes in pieces that add up to the completion") {
  std::string streamed;
  bool valid = true, drafted = false;
  const Completion completion =
      demo_engine().generate(kPrompt, greedy(80), [&](const TextPiece& piece) {
        streamed += piece.text;
        valid = valid && !find_invalid_utf8(piece.text) && !piece.text.empty() && piece.index == 0;
        drafted = drafted || piece.from_draft;
      });
  CHECK(streamed == completion.text);
  CHECK(valid);
  CHECK(drafted);
  CHECK(completion.text == demo_engine().detokenize(completion.token_ids));
  CHECK(completion.prompt_token_ids == demo_engine().tokenize(kPrompt));
  CHECK(completion.token_ids.size() == 80);
  CHECK(completion.finish_reason == FinishReason::kLength);
  CHECK(completion.stats.num_tokens == 80);
  CHECK(completion.stats.num_accepted_tokens + completion.stats.num_rounds == 80);
}

TEST_CASE("Text and token ids are equal prompts") {
  Engine& engine = demo_engine();
  const std::vector<int32_t> ids = engine.tokenize(kPrompt);
  CHECK(engine.generate(ids, greedy(20)).token_ids ==
        engine.generate(kPrompt, greedy(20)).token_ids);
}

TEST_CASE("The limit holds inside a round, whatever K") {
  for (const int limit : {1, 2, 3, 4, 5, 6, 7}) {
    for (const int k : {0, 1, 4, 8}) {
      const Completion completion = generate(demo_engine(), greedy(limit), k);
      CHECK(static_cast<int>(completion.token_ids.size()) == limit);
      CHECK(completion.stats.num_tokens == limit);
      CHECK(completion.stats.num_accepted_tokens + completion.stats.num_rounds == limit);
    }
  }
}

TEST_CASE(
    "A stop string ends the text before itself and the tokens with the one that completed it") {
  Engine& engine = demo_engine();
  const Completion whole = generate(engine, greedy(60), 0);
  constexpr size_t kStep = test::kSanitized ? 35 : 5;
  for (size_t begin = 0; begin + 3 < whole.text.size(); begin += kStep) {
    for (const size_t length : {size_t{1}, size_t{3}, size_t{9}}) {
      SamplingParams params = greedy(60);
      params.stop = {whole.text.substr(begin, length)};
      if (find_invalid_utf8(params.stop.front())) continue;
      const size_t found = whole.text.find(params.stop.front());
      const size_t stop_end = found + params.stop.front().size();
      for (const int k : {0, 3, 8}) {
        std::string streamed;
        Request request = request_of(kPrompt, params);
        request.num_speculative_tokens = k;
        request.on_text = [&](const TextPiece& piece) { streamed += piece.text; };
        const Completion completion = engine.submit(request).wait().front();
        CAPTURE(params.stop.front(), k);
        CHECK(completion.text == whole.text.substr(0, found));
        CHECK(streamed == completion.text);
        CHECK(completion.finish_reason == FinishReason::kStop);
        const auto count = completion.token_ids.size();
        CHECK(std::equal(completion.token_ids.begin(), completion.token_ids.end(),
                         whole.token_ids.begin()));
        CHECK(engine.detokenize(completion.token_ids).size() >= stop_end);
        CHECK(engine.detokenize(std::span(completion.token_ids).first(count - 1)).size() <
              stop_end);
        CHECK(completion.stats.num_tokens == static_cast<int64_t>(count));
        // The last round may have lost its extra token, never more.
        const int64_t emitted = completion.stats.num_accepted_tokens + completion.stats.num_rounds;
        CHECK(emitted - completion.stats.num_tokens >= 0);
        CHECK(emitted - completion.stats.num_tokens <= 1);
      }
    }
  }
}

TEST_CASE("Any of the end-of-sequence tokens ends the text, and stands in the ids") {
  const Completion whole = generate(demo_engine(), greedy(40), 0);
  const int32_t ends[] = {whole.token_ids[7], whole.token_ids[13]};
  const ModelFolder main(demo_main());
  main.edit_json("generation_config.json", [&](json& config) {
    config["eos_token_id"] = {ends[0], ends[1]};
  });
  Config config = demo_config();
  config.main.model = main.path();
  const auto engine = Engine::from_config(config);
  const auto first = std::find_first_of(whole.token_ids.begin(), whole.token_ids.end(),
                                        std::begin(ends), std::end(ends));
  const std::vector<int32_t> expected(whole.token_ids.begin(), first + 1);
  for (const int k : {0, 1, 4, 8}) {
    const Completion completion = generate(*engine, greedy(40), k);
    CHECK(completion.token_ids == expected);
    CHECK(completion.finish_reason == FinishReason::kStop);
    CHECK(completion.text == engine->detokenize(std::span(expected).first(expected.size() - 1)));
  }
  SamplingParams params = greedy(40);
  params.ignore_eos = true;
  CHECK(generate(*engine, params).token_ids == whole.token_ids);
}

TEST_CASE("Several completions are those of their seeds alone") {
  Engine& engine = demo_engine();
  Request request = request_of(kPrompt, sampled(25, 100));
  request.n = 4;
  int last_index = 0;
  request.on_text = [&](const TextPiece& piece) {
    CHECK(piece.index >= last_index);
    last_index = piece.index;
  };
  const std::vector<Completion> together = engine.submit(request).wait();
  REQUIRE(together.size() == 4);
  CHECK(last_index == 3);
  for (int i = 0; i < 4; ++i) {
    const Completion& completion = together[static_cast<size_t>(i)];
    CHECK(completion.index == i);
    CHECK(completion.seed == 100u + static_cast<uint64_t>(i));
    CHECK(completion.token_ids == generate(engine, sampled(25, completion.seed)).token_ids);
  }
  CHECK(together[0].token_ids != together[1].token_ids);
}

TEST_CASE("A coupled text is one text for one seed, whatever the draft") {
  Config config = demo_config();
  config.speculation.rejection_sample_method = "coupled";
  const auto engine = Engine::from_config(config);
  SamplingParams params = sampled(60, 5);
  params.top_p = 0.9f;
  params.frequency_penalty = 0.3f;
  const std::vector<int32_t> plain = generate(*engine, params, 0).token_ids;
  for (const int k : {1, 4, 8}) CHECK(generate(*engine, params, k).token_ids == plain);
}

TEST_CASE("Greedy text is the same with a draft model, with n-grams and alone") {
  Config config = demo_config();
  config.draft.reset();
  config.speculation.method = "ngram";
  const auto ngram = Engine::from_config(config);
  config.speculation.method = "none";
  const auto alone = Engine::from_config(config);
  CHECK(alone->info().max_speculative_tokens == 0);
  SamplingParams params = greedy(150);
  params.ignore_eos = true;
  params.repetition_penalty = 1.1f;
  const Completion expected = generate(*alone, params);
  CHECK(generate(demo_engine(), params).token_ids == expected.token_ids);
  CHECK(generate(*ngram, params).token_ids == expected.token_ids);
}

TEST_CASE("Log-probabilities are the main model's, whatever K") {
  SamplingParams params = greedy(20);
  params.logprobs = 3;
  const Completion plain = generate(demo_engine(), params, 0),
                   drafted = generate(demo_engine(), params, 5);
  REQUIRE(plain.logprobs.size() == 20);
  REQUIRE(drafted.logprobs.size() == 20);
  for (size_t i = 0; i < 20; ++i) {
    CHECK(plain.logprobs[i].token == plain.token_ids[i]);
    CHECK(plain.logprobs[i].top.size() == 3);
    CHECK(plain.logprobs[i].top.front().first == plain.token_ids[i]);
    CHECK(plain.logprobs[i].top.front().second == plain.logprobs[i].logprob);
    CHECK(drafted.logprobs[i].logprob == plain.logprobs[i].logprob);
    CHECK(drafted.logprobs[i].top == plain.logprobs[i].top);
  }
  CHECK(generate(demo_engine(), greedy(3)).logprobs.empty());
}

TEST_CASE("A request can be cancelled from another thread, and the engine goes on") {
  Engine& engine = demo_engine();
  const std::vector<int32_t> expected = generate(engine, greedy(10)).token_ids;
  SamplingParams endless = greedy(1900);
  endless.ignore_eos = true;
  Request request = request_of(kPrompt, endless);
  std::promise<void> started;
  std::atomic<bool> told = false;
  request.on_text = [&](const TextPiece&) {
    if (!told.exchange(true)) started.set_value();
  };
  request.n = 2;
  RequestHandle handle = engine.submit(request);
  RequestHandle waiting = engine.submit(request_of(kPrompt, greedy(5)));
  started.get_future().wait();
  waiting.cancel();
  std::thread([copy = handle]() mutable { copy.cancel(); }).join();
  const std::vector<Completion> completions = handle.wait();
  REQUIRE(completions.size() == 1);  // the second one had not begun
  CHECK(completions[0].finish_reason == FinishReason::kCancelled);
  CHECK_FALSE(completions[0].token_ids.empty());
  CHECK(completions[0].token_ids.size() < 1900);
  CHECK(handle.done());
  CHECK(waiting.wait().front().finish_reason == FinishReason::kCancelled);
  CHECK(generate(engine, greedy(10)).token_ids == expected);
}

TEST_CASE("Cancelling ends a request for many completions at once") {
  Engine& engine = demo_engine();
  Request request = request_of(kPrompt, greedy(200));
  request.n = Request::kMaxCompletions;
  std::atomic<bool> begun{false};
  request.on_text = [&](const TextPiece&) { begun = true; };
  RequestHandle handle = engine.submit(request);
  while (!begun) std::this_thread::yield();
  handle.cancel();
  const std::vector<Completion> completions = handle.wait();
  REQUIRE_FALSE(completions.empty());
  CHECK(completions.size() < static_cast<size_t>(Request::kMaxCompletions));
  CHECK(completions.back().finish_reason == FinishReason::kCancelled);
  request.n = Request::kMaxCompletions + 1;
  CHECK_THROWS_AS(engine.submit(request), UsageError);
}

TEST_CASE("A request that fails tells why, and the engine goes on") {
  Engine& engine = demo_engine();
  const std::vector<int32_t> expected = generate(engine, greedy(10)).token_ids;
  Request request = request_of(kPrompt, greedy(50));
  int pieces = 0;
  request.on_text = [&](const TextPiece&) {
    if (++pieces == 3) throw std::runtime_error("the reader has gone");
  };
  RequestHandle handle = engine.submit(request);
  CHECK_THROWS_WITH(handle.wait(), "the reader has gone");
  CHECK_THROWS_WITH(handle.wait(), "the reader has gone");
  CHECK(handle.done());
  CHECK(generate(engine, greedy(10)).token_ids == expected);
}

TEST_CASE("Many threads may submit at once") {
  Engine& engine = demo_engine();
  const std::vector<int32_t> expected = generate(engine, greedy(8)).token_ids;
  std::vector<std::future<bool>> results;
  for (int i = 0; i < 4; ++i) {
    results.push_back(std::async(std::launch::async, [&] {
      bool same = true;
      for (int j = 0; j < 3; ++j) {
        same = same && generate(engine, greedy(8)).token_ids == expected;
        same = same && engine.detokenize(engine.tokenize("some text")) == "some text";
      }
      return same;
    }));
  }
  for (auto& result : results) CHECK(result.get());
}

TEST_CASE("Destroying an engine cancels what is left") {
  SamplingParams endless = greedy(1900);
  endless.ignore_eos = true;
  std::vector<RequestHandle> handles;
  {
    const auto engine = Engine::from_config(demo_config());
    for (int i = 0; i < 3; ++i) handles.push_back(engine->submit(request_of(kPrompt, endless)));
  }
  for (RequestHandle& handle : handles) {
    CHECK(handle.done());
    CHECK(handle.wait().front().finish_reason == FinishReason::kCancelled);
  }
}

TEST_CASE("Requests that cannot be honoured are refused at once") {
  Engine& engine = demo_engine();
  const auto error_of = [&](const Request& request) {
    return message_of([&] { engine.submit(request); });
  };
  CHECK_THAT(error_of(request_of("", greedy(1))), ContainsText("the prompt is empty"));
  CHECK_THAT(error_of(request_of("a\xff", greedy(1))), ContainsText("UTF-8"));
  Request ids;
  ids.prompt = std::vector<int32_t>{};
  CHECK_THAT(error_of(ids), ContainsText("the prompt is empty"));
  ids.prompt = std::vector<int32_t>{0, 6144};
  CHECK_THAT(error_of(ids), ContainsText("token id 6144") && ContainsText("0 to 6143"));
  ids.prompt = std::vector<int32_t>{0, -1};
  CHECK_THAT(error_of(ids), ContainsText("token id -1"));
  ids.prompt = std::vector<int32_t>(2048, 5);
  CHECK_THAT(error_of(ids), ContainsText("2048 tokens, the context 2048: at most 2047"));
  Request request = request_of(kPrompt, greedy(1));
  request.n = 0;
  CHECK_THAT(error_of(request), ContainsText("n is 0"));
  request.n = 1;
  request.num_speculative_tokens = 9;
  CHECK_THAT(error_of(request),
             ContainsText("num_speculative_tokens is 9") && ContainsText("0 to 8"));
  CHECK_THROWS_AS(engine.generate(kPrompt, greedy(0)), UsageError);
  CHECK(generate(engine, greedy(3)).token_ids.size() == 3);
}

TEST_CASE("Generation ends where the context ends") {
  Config config = demo_config();
  config.main.max_model_len = 24;
  const auto engine = Engine::from_config(config);
  SamplingParams params = greedy(100);
  params.ignore_eos = true;
  const std::vector<int32_t> expected = generate(demo_engine(), params, 0).token_ids;
  const size_t room = 24 - engine->tokenize(kPrompt).size();
  for (const int k : {0, 4, 8}) {
    const Completion completion = generate(*engine, params, k);
    CHECK(completion.token_ids ==
          std::vector<int32_t>(expected.begin(), expected.begin() + static_cast<ptrdiff_t>(room)));
    CHECK(completion.finish_reason == FinishReason::kLength);
  }
  const std::vector<int32_t> longest(23, 300);
  CHECK(engine->generate(longest, params).token_ids.size() == 1);
}

TEST_CASE("Beyond the draft's context decoding goes on plainly") {
  const ModelFolder draft(demo_draft());
  draft.edit_json("config.json", [](json& config) { config["max_position_embeddings"] = 48; });
  Config config = demo_config();
  config.draft->model = draft.path();
  const auto engine = Engine::from_config(config);
  CHECK(engine->info().draft_max_model_len == 48);
  REQUIRE(engine->info().warnings.size() == 1);
  CHECK_THAT(engine->info().warnings.front(), ContainsText("48") && ContainsText("2048"));
  SamplingParams params = greedy(100);
  params.ignore_eos = true;
  const Completion completion = generate(*engine, params, 4);
  CHECK(completion.token_ids == generate(demo_engine(), params, 0).token_ids);
  CHECK(completion.stats.num_drafts > 0);
  CHECK(completion.stats.num_rounds > completion.stats.num_drafts + 40);
  const std::vector<int32_t> beyond(60, 300);
  CHECK(engine->generate(beyond, params).token_ids ==
        demo_engine().generate(beyond, params).token_ids);
}

TEST_CASE("Pairs that do not fit are refused or warned about") {
  SECTION("a swapped pair") {
    Config config = demo_config();
    std::swap(config.main.model, config.draft->model);
    const auto engine = Engine::from_config(config);
    REQUIRE(engine->info().warnings.size() == 1);
    CHECK_THAT(engine->info().warnings.front(), ContainsText("larger than the main model"));
  }
  SECTION("no draft model") {
    Config config = demo_config();
    config.draft.reset();
    CHECK_THAT(message_of([&] { Engine::from_config(config); }),
               ContainsText("no draft model is given"));
  }
  SECTION("a draft without a tokenizer") {
    const ModelFolder draft(demo_draft());
    draft.remove("tokenizer.json");
    Config config = demo_config();
    config.draft->model = draft.path();
    CHECK_THAT(message_of([&] { Engine::from_config(config); }), ContainsText("tokenizer.json"));
    config.speculation.method = "none";
    CHECK_NOTHROW(Engine::from_config(config));
  }
  SECTION("a context beyond the model's") {
    Config config = demo_config();
    config.main.max_model_len = 2049;
    CHECK_THAT(message_of([&] { Engine::from_config(config); }),
               ContainsText("2049") && ContainsText("2048"));
  }
  SECTION("a padded vocabulary") {
    const ModelFolder draft(demo_draft());
    draft.edit_json("tokenizer.json", [](json& tokenizer) {
      json& vocabulary = tokenizer["model"]["vocab"];
      for (auto it = vocabulary.begin(); it != vocabulary.end();) {
        it = it->get<int>() >= 6100 ? vocabulary.erase(it) : std::next(it);
      }
      json& merges = tokenizer["model"]["merges"];
      for (auto it = merges.begin(); it != merges.end();) {
        const std::string joined = it->is_array()
                                       ? (*it)[0].get<std::string>() + (*it)[1].get<std::string>()
                                       : it->get<std::string>();
        std::string token = joined;
        token.erase(std::remove(token.begin(), token.end(), ' '), token.end());
        it = vocabulary.contains(token) ? std::next(it) : merges.erase(it);
      }
    });
    Config config = demo_config();
    config.draft->model = draft.path();
    const auto engine = Engine::from_config(config);
    CHECK(engine->info().vocabulary_agreement < 1.0);
    CHECK(engine->info().vocabulary_agreement > 0.95);
    CHECK(generate(*engine, greedy(40)).token_ids == generate(demo_engine(), greedy(40)).token_ids);
  }
}

TEST_CASE("Weights can be held in another type") {
  Config config = demo_config();
  config.main.dtype = "float32";
  const auto wide = Engine::from_config(config);
  CHECK(generate(*wide, greedy(30)).token_ids == generate(demo_engine(), greedy(30)).token_ids);
}

TEST_CASE("Loading reports draft, then main") {
  std::vector<std::string> models;
  uint64_t last_done = 0, last_total = 0;
  EngineOptions options;
  options.on_load = [&](std::string_view model, uint64_t done, uint64_t total) {
    if (models.empty() || models.back() != model) models.emplace_back(model);
    last_done = done;
    last_total = total;
  };
  Engine::from_config(demo_config(), options);
  CHECK(models == std::vector<std::string>{"draft", "main"});
  CHECK(last_done == last_total);
}

TEST_CASE("A request may bring its own rule, and have the expected acceptance measured") {
  Engine& engine = demo_engine();
  Request request = request_of(kPrompt, sampled(60, 5));
  request.num_speculative_tokens = 3;
  request.measure_expected_acceptance = true;
  for (const std::string rule : {"rejection", "block", "coupled"}) {
    request.rejection_sample_method = rule;
    const Stats stats = engine.submit(request).wait().front().stats;
    REQUIRE(stats.expected_acceptance_per_position.size() == 3);
    for (size_t i = 0; i < 3; ++i) {
      CHECK(stats.expected_acceptance_per_position[i] > 0);
      CHECK(stats.expected_acceptance_per_position[i] <=
            static_cast<double>(stats.reached_per_position[i]));
    }
  }
  request.rejection_sample_method = "coupled";
  const std::vector<int32_t> coupled = engine.submit(request).wait().front().token_ids;
  request.num_speculative_tokens = 0;
  CHECK(engine.submit(request).wait().front().token_ids == coupled);
  CHECK(engine.submit(request_of(kPrompt, greedy(20)))
            .wait()
            .front()
            .stats.expected_acceptance_per_position.empty());
  request.rejection_sample_method = "hope";
  CHECK_THAT(message_of([&] { engine.submit(request); }),
             ContainsText("rejection_sample_method is 'hope'") && ContainsText("'coupled'"));
}

TEST_CASE("Acceptance that is made up is what was asked for, to the end of the text") {
  Engine& engine = demo_engine();
  constexpr int kTokens = test::kSanitized ? 600 : 1500;
  Request request = request_of(kPrompt, sampled(kTokens, 5));
  request.num_speculative_tokens = 5;
  request.synthetic_acceptance_rates = acceptance_rates_of_length(3.4);
  const Completion made_up = engine.submit(request).wait().front();
  CHECK(made_up.stats.mean_acceptance_length() == Approx(3.4).epsilon(0.01));
  CHECK(made_up.finish_reason == FinishReason::kLength);
  CHECK(engine.submit(request).wait().front().token_ids == made_up.token_ids);
  request.num_speculative_tokens = Request::kAuto;
  CHECK(engine.submit(request).wait().front().stats.num_tokens == kTokens);

  const auto error_of = [&](const Request& refused) {
    return message_of([&] { engine.submit(refused); });
  };
  Request with = request;
  with.params.stop = {"x"};
  CHECK_THAT(error_of(with), ContainsText("stop strings"));
  with = request;
  with.params.logprobs = 0;
  CHECK_THAT(error_of(with), ContainsText("logprobs"));
  with = request;
  with.measure_expected_acceptance = true;
  CHECK_THAT(error_of(with), ContainsText("expected acceptance"));
  with = request;
  with.num_speculative_tokens = 2;
  CHECK_THAT(error_of(with), ContainsText("3 drafts a round, of which 2"));
  with.num_speculative_tokens = 0;
  CHECK_THAT(error_of(with), ContainsText("num_speculative_tokens is 0"));
  with = request;
  for (const std::vector<double>& rates : std::vector<std::vector<double>>{
           {1.5}, {-0.1}, {std::numeric_limits<double>::quiet_NaN()}}) {
    with.synthetic_acceptance_rates = rates;
    CHECK_THAT(error_of(with), ContainsText("expected numbers from 0 to 1"));
  }
  with.synthetic_acceptance_rates = {0.5, 0.6};
  CHECK_THAT(error_of(with), ContainsText("rates that rise"));
}

TEST_CASE("auto is the default, and its choices follow from the cost table") {
  Engine& engine = demo_engine();
  CHECK(engine.info().costs == CostTable::from_file(demo_cost_table()));
  const Completion plain = generate(engine, greedy(120), 0);
  const Completion chosen = generate(engine, greedy(120));
  CHECK(chosen.token_ids == plain.token_ids);
  CHECK(chosen.stats.mean_draft_length() > 1);
  CHECK(generate(engine, greedy(120), Request::kAuto).stats.draft_lengths ==
        chosen.stats.draft_lengths);
  // Under a rule whose text depends on K as well: another engine with the table gives the same.
  const Completion sampled_text = generate(engine, sampled(120, 5));
  const Completion again = generate(*Engine::from_config(demo_config()), sampled(120, 5));
  CHECK(again.token_ids == sampled_text.token_ids);
  CHECK(again.stats.draft_lengths == sampled_text.stats.draft_lengths);
}

TEST_CASE("without a cost table rounds are measured when the pair is loaded") {
  Config config = demo_config();
  config.speculation.cost_table.reset();
  config.speculation.max_speculative_tokens = 3;
  config.speculation.method = GENERATE("draft_model", "ngram");
  const auto engine = Engine::from_config(config);
  const CostTable& costs = engine->info().costs;
  REQUIRE(costs.max_drafts() == 3);
  CHECK(costs.verify_seconds.front() > 0);
  for (int k = 1; k <= 3; ++k) CHECK(costs.round_seconds(k) >= costs.round_seconds(k - 1));
  if (config.speculation.method == "draft_model") {
    CHECK(costs.draft_first_seconds > 0);
  } else {
    CHECK(costs.draft_catch_up_seconds == 0);  // no cache that could lie behind
  }
  const Completion chosen = generate(*engine, greedy(60));
  CHECK(chosen.token_ids == generate(*engine, greedy(60), 0).token_ids);
  CHECK(chosen.stats.draft_lengths.size() <= 4);
}

TEST_CASE("a cost table that ends too early is refused before anything is loaded") {
  Config config = demo_config();
  config.speculation.max_speculative_tokens = 9;
  CHECK_THAT(message_of([&] { Engine::from_config(config); }),
             ContainsText("cost_table.json: \"verify_seconds\" ends at 8 drafts a round, but "
                          "\"auto\" may choose 9"));
  config.speculation.cost_table = "no/such/table.json";
  CHECK_THAT(message_of([&] { Engine::from_config(config); }), ContainsText("no such file"));
}
