#include "loop.h"

#include <algorithm>

namespace tandem::test {
namespace {

std::unique_ptr<Drafter> local_drafter(const Loop::Options& options, TableModel& draft,
                                       Backend& backend) {
  constexpr int kLookupMin = 1, kLookupMax = 3;
  switch (options.drafter) {
    case DrafterKind::kNone:
      return nullptr;
    case DrafterKind::kModel:
      return std::make_unique<ModelDrafter>(draft, options.vocab, options.allowed);
    case DrafterKind::kNgram:
      return std::make_unique<NgramDrafter>(backend, kLookupMin, kLookupMax, options.max_positions);
    case DrafterKind::kGuess:
      return std::make_unique<GuessingDrafter>(backend);
  }
  return nullptr;
}

std::unique_ptr<Drafter> make_drafter(const Loop::Options& options, TableModel& main,
                                      TableModel& draft, Backend& backend) {
  auto drafter = local_drafter(options, draft, backend);
  if (drafter == nullptr) return drafter;
  return RemoteDrafter::around(std::move(drafter), draft.backend(), main, options.max_drafts);
}

std::unique_ptr<Backend> cpu(int index) {
  return make_backend({.id = {.kind = DeviceKind::kCpu, .index = index}, .capacity_bytes = {}}, 1);
}

}  // namespace

int GuessingDrafter::draft(const RoundView& round, const DraftRequest& request, Stream& stream) {
  constexpr int kShortEvery = 3;
  const int count = ++rounds_ % kShortEvery == 0 ? request.num_drafts / 2 : request.num_drafts;
  const std::vector<int32_t> tokens(static_cast<size_t>(count), last_);
  backend_.copy_to_device(round.drafts, tokens.data(), tokens.size() * sizeof(int32_t), stream);
  return count;
}

Loop::Loop(Options options, std::unique_ptr<Backend> backend_in)
    : backend(backend_in != nullptr ? std::move(backend_in) : cpu(0)),
      draft_backend(options.apart ? cpu(1) : nullptr),
      main(*backend, options.vocab,
           random_table(options.vocab, options.spread, options.holes, options.table_seed),
           options.max_positions, options.max_rows),
      draft(options.apart ? *draft_backend : *backend, options.vocab,
            draft_table(
                random_table(options.vocab, options.spread, options.holes, options.table_seed),
                options.vocab, options.quality, options.table_seed + 1),
            options.draft_max_positions, options.max_rows),
      launch_ahead(options.launch_ahead),
      decoder(
          std::make_unique<SpeculativeDecoder>(main, make_drafter(options, main, draft, *backend),
                                               options.max_drafts, std::move(options.policy))) {}

std::vector<int32_t> Loop::generate(std::span<const int32_t> prompt, DecodeSettings settings,
                                    int tokens, int rounds) {
  constexpr int kNoLimit = 1 << 20;
  if (!settings.launch_ahead) settings.launch_ahead = launch_ahead;
  if (std::ranges::equal(prompt, last_prompt)) {
    decoder->restart(settings);
  } else {
    decoder->start(prompt, settings);
    last_prompt.assign(prompt.begin(), prompt.end());
  }
  std::vector<int32_t> text;
  for (int done = 0; done < rounds || static_cast<int>(text.size()) < tokens; ++done) {
    const RoundResult& result = decoder->round(kNoLimit);
    text.insert(text.end(), result.tokens.begin(), result.tokens.end());
    ++num_rounds;
    num_drafts += result.num_drafts > 0 ? 1 : 0;
    num_draft_tokens += result.num_drafts;
    num_accepted += result.num_accepted;
  }
  text.resize(static_cast<size_t>(tokens));
  return text;
}

DecodeSettings settings_of(DecodeRule::Kind kind, int num_speculative_tokens, uint64_t seed,
                           float temperature) {
  DecodeSettings settings;
  settings.rule.kind = kind;
  settings.rule.transform.temperature = kind == DecodeRule::Kind::kGreedy ? 0 : temperature;
  settings.seed = seed;
  settings.num_speculative_tokens = num_speculative_tokens;
  return settings;
}

std::string name_of(DecodeRule::Kind kind) {
  switch (kind) {
    case DecodeRule::Kind::kGreedy:
      return "greedy";
    case DecodeRule::Kind::kRejection:
      return "rejection";
    case DecodeRule::Kind::kBlock:
      return "block";
    case DecodeRule::Kind::kCoupled:
      return "coupled";
  }
  return "?";
}

ChiSquare joint_test(Loop& loop, DecodeRule::Kind kind, int num_speculative_tokens, int tokens,
                     int rounds, int draws) {
  const std::vector<int32_t> prompt = {1, 2, 0, 1};
  const std::vector<double> law = joint_law(loop.main, prompt, tokens);
  std::vector<int64_t> counts(law.size());
  DecodeSettings settings = settings_of(kind, num_speculative_tokens);
  for (int draw = 0; draw < draws; ++draw) {
    settings.seed = static_cast<uint64_t>(draw);
    size_t cell = 0;
    for (const int32_t token : loop.generate(prompt, settings, tokens, rounds)) {
      cell = cell * static_cast<size_t>(loop.main.vocab_size()) + static_cast<size_t>(token);
    }
    ++counts[cell];
  }
  return goodness_of_fit(counts, law);
}

}  // namespace tandem::test
