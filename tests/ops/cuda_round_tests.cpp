#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "op_runner.h"

using namespace tandem;
using namespace tandem::test;

namespace {

/// A round on either device, filled with the same numbers.
struct DeviceRound {
  static constexpr int kDrafts = 5, kStride = 64, kLength = 11;
  RoundView view;

  DeviceRound(OpRunner& run, int vocab, bool certain, uint32_t seed) {
    std::mt19937 generator(seed);
    const auto v = static_cast<size_t>(vocab);
    const auto law = [&](size_t rows, float sharpness) {
      std::vector<float> probs(rows * v);
      std::normal_distribution<float> normal(0.0f, sharpness);
      for (size_t r = 0; r < rows; ++r) {
        double sum = 0;
        for (size_t i = 0; i < v; ++i) sum += probs[r * v + i] = std::exp(normal(generator));
        for (size_t i = 0; i < v; ++i) {
          probs[r * v + i] = static_cast<float>(static_cast<double>(probs[r * v + i]) / sum);
        }
      }
      return probs;
    };
    std::vector<float> main = law(kDrafts + 1, 3.0f);
    std::vector<float> draft(main.begin(), main.begin() + static_cast<std::ptrdiff_t>(kDrafts * v));
    const std::vector<float> noise = law(kDrafts, 3.0f);
    for (size_t i = 0; i < draft.size(); ++i) draft[i] = 0.7f * draft[i] + 0.3f * noise[i];
    std::vector<int32_t> drafts(kDrafts), history(kStride), tokens(kDrafts + 1), counts(v);
    std::vector<uint8_t> seen(v);
    for (size_t k = 0; k < kDrafts; ++k) {
      std::discrete_distribution<int32_t> pick(
          draft.begin() + static_cast<std::ptrdiff_t>(k * v),
          draft.begin() + static_cast<std::ptrdiff_t>((k + 1) * v));
      drafts[k] = pick(generator);
      tokens[k] = generator() % 4 == 0 ? (drafts[k] + 1) % vocab : drafts[k];
    }
    for (size_t i = 0; i < kStride; ++i) history[i] = static_cast<int32_t>(generator() % v);
    for (size_t i = 0; i < v; ++i) {
      counts[i] = generator() % 8 == 0 ? static_cast<int32_t>(generator() % 3) : 0;
      seen[i] = generator() % 8 == 0 ? 1 : 0;
    }
    view.max_drafts = kDrafts;
    view.vocab = vocab;
    view.history_stride = kStride;
    view.length = run.array<int32_t>({kLength});
    view.history = run.array(history);
    view.drafts = run.array(drafts);
    view.draft_probs = certain ? nullptr : run.array(draft);
    view.main_probs = run.array(main);
    view.main_tokens = run.array(tokens);
    view.output = run.array(std::vector<int32_t>(kDrafts + 1, -1));
    view.count = run.array<int32_t>({-1});
    view.round_base = run.array<int32_t>({kLength});
    view.seeds = run.array<uint64_t>({0x123456789abcdefull + seed});
    view.streams = run.array<int32_t>({3});
    view.output_counts = run.array(counts);
    view.prompt_seen = run.array(seen);
  }
};

/// Accepts and commits `trials` rounds on both devices; every second one has the wide vocabulary.
void check_accept(AcceptRule rule, bool certain, uint32_t trials, int wide_vocab,
                  size_t fewest_counts) {
  OpRunner cuda(cuda_device()), cpu(cpu_device());
  std::set<int32_t> counts;
  int different = 0;
  for (uint32_t seed = 0; seed < trials; ++seed) {
    std::vector<int32_t> results[2];
    const int vocab = seed % 2 == 0 ? 50 : wide_vocab;
    const int drafts = static_cast<int>(seed % 6);
    for (int i = 0; i < 2; ++i) {
      OpRunner& run = i == 0 ? cuda : cpu;
      const DeviceRound round(run, vocab, certain, seed);
      run.backend->accept(round.view, rule, drafts, *run.stream);
      const int32_t count = run.fetch(round.view.count, 1)[0];
      REQUIRE((count >= 1 && count <= drafts + 1));
      results[i] = run.fetch(round.view.output, static_cast<size_t>(count));
      run.backend->commit(round.view, *run.stream);
      for (const int32_t x : run.fetch(round.view.history, DeviceRound::kStride)) {
        results[i].push_back(x);
      }
      results[i].push_back(run.fetch(round.view.length, 1)[0]);
      for (const int32_t x : run.fetch(round.view.output_counts, static_cast<size_t>(vocab))) {
        results[i].push_back(x);
      }
      counts.insert(count);
    }
    different += results[0] == results[1] ? 0 : 1;
  }
  CHECK(counts.size() >= fewest_counts);
  // Sums of thousands of doubles in another order move a boundary by 1e-13 of the unit interval.
  CHECK(different == 0);
}

/// Chooses and samples on both devices by each `step`th of the kinds of transforms.
void check_choices(int vocab, size_t step) {
  OpRunner cuda(cuda_device()), cpu(cpu_device());
  const int rows = 5, columns = vocab + 7;
  auto logits = random_bf16(static_cast<size_t>(rows * columns), 21, 3.0f);  // has many ties
  std::vector<uint8_t> mask(static_cast<size_t>(vocab), 1);
  for (size_t i = 0; i < mask.size(); i += 3) mask[i] = 0;
  std::vector<SamplingTransform> transforms(7);
  transforms[1].temperature = 0.6f;
  transforms[2].top_k = 7;
  transforms[3].top_p = 0.9f;
  transforms[4].min_p = 0.05f;
  transforms[5] = {.repetition_penalty = 1.3f,
                   .presence_penalty = 0.4f,
                   .frequency_penalty = 0.2f,
                   .temperature = 0.8f,
                   .top_k = 40,
                   .top_p = 0.95f,
                   .min_p = 0.01f};
  transforms[6].top_p = 0.3f;
  for (size_t t = 0; t < transforms.size(); t += step) {
    for (const bool masked : {false, true}) {
      if (step > 1 && masked != (t > 0)) continue;
      CAPTURE(vocab, t, masked);
      std::vector<float> probs[2];
      std::vector<int32_t> ids[2];
      for (int i = 0; i < 2; ++i) {
        OpRunner& run = i == 0 ? cuda : cpu;
        const DeviceRound round(run, vocab, false, 1);
        const TensorView x = run.floats(logits, {rows, columns});
        const TensorView p =
            run.floats(std::vector<float>(static_cast<size_t>(rows * vocab), 7.0f), {rows, vocab});
        int32_t* chosen = run.array(std::vector<int32_t>(static_cast<size_t>(rows) * 3, -1));
        const uint8_t* allowed = masked ? run.array(mask) : nullptr;
        run.backend->argmax(round.view, x, transforms[t], 1, allowed, chosen, *run.stream);
        run.backend->distribution(round.view, x, transforms[t], 1, allowed, p, *run.stream);
        run.backend->sample(round.view, p, 1, RandomPurpose::kDraft, chosen + rows, *run.stream);
        run.backend->gumbel_argmax(round.view, p, 1, chosen + 2 * rows, *run.stream);
        probs[i] = run.fetch(p);
        ids[i] = run.fetch(chosen, static_cast<size_t>(rows) * 3);
      }
      CHECK(ids[0] == ids[1]);
      double worst = 0;
      size_t kept[2] = {};
      for (size_t i = 0; i < probs[0].size(); ++i) {
        kept[0] += probs[0][i] > 0;
        kept[1] += probs[1][i] > 0;
        if (probs[0][i] > 0 && probs[1][i] > 0) {
          worst = std::max(
              worst,
              std::fabs(static_cast<double>(probs[0][i]) / static_cast<double>(probs[1][i]) - 1));
        }
      }
      // A float32 sum of the vocabulary in 16 lanes on the CPU, and two exponentials of few ulp.
      CHECK(worst < 6e-8 * (20 + vocab / 16.0));
      if (transforms[t].top_p == 1.0f) {
        CHECK(kept[0] == kept[1]);
      } else {  // the last token kept may hang on the rounding of a sum
        CHECK(std::max(kept[0], kept[1]) - std::min(kept[0], kept[1]) <= static_cast<size_t>(rows));
      }
    }
  }
}

}  // namespace

TEST_CASE("CUDA rounds accept what the CPU accepts", "[cuda]") {
  if (!has_gpu()) return;
  const AcceptRule rule = GENERATE(AcceptRule::kExact, AcceptRule::kRejection, AcceptRule::kBlock);
  const bool certain = GENERATE(false, true);
  check_accept(rule, certain, 60, 3001, 3);
}

TEST_CASE("CUDA accepts in few launches", "[cuda][sanitize]") {
  if (!has_gpu()) return;
  const AcceptRule rule = GENERATE(AcceptRule::kExact, AcceptRule::kRejection, AcceptRule::kBlock);
  const bool certain = GENERATE(false, true);
  check_accept(rule, certain, 12, 400, 2);
}

TEST_CASE("CUDA and CPU agree on the expected acceptance", "[cuda][sanitize]") {
  if (!has_gpu()) return;
  const bool certain = GENERATE(false, true);
  const int vocab = GENERATE(50, 3001, 40001);
  OpRunner cuda(cuda_device()), cpu(cpu_device());
  std::vector<float> results[2];
  for (int i = 0; i < 2; ++i) {
    OpRunner& run = i == 0 ? cuda : cpu;
    const DeviceRound round(run, vocab, certain, 7);
    auto* const out = run.array(std::vector<float>(DeviceRound::kDrafts, -1.0f));
    run.backend->expected_acceptance(round.view, DeviceRound::kDrafts - 1, out, *run.stream);
    results[i] = run.fetch(out, DeviceRound::kDrafts);
  }
  CHECK(results[0].back() == -1.0f);
  for (size_t i = 0; i < results[0].size(); ++i) {
    // Sums of doubles in another order, rounded once to float32.
    CHECK(results[0][i] == Approx(results[1][i]).epsilon(2e-7));
  }
}

TEST_CASE("CUDA choices and distributions agree with the CPU", "[cuda]") {
  if (!has_gpu()) return;
  // The last ones' rows do not fit into one block's shared memory.
  check_choices(GENERATE(50, 6144, 40001, 60001), 1);
}

TEST_CASE("CUDA finds the last token of a top-p near 1 among weights of any size",
          "[cuda][sanitize]") {
  if (!has_gpu()) return;
  constexpr int kRows = 2, kVocab = 40001;
  // The second token weighs 1e-4 of the first one, all others together less than rounding does.
  const float top_p = GENERATE(0.5f, 0.9998f, 0.99995f, 0.99999f);
  const float other = GENERATE(-30.0f, -60.0f, -1e30f);
  const bool takes_second = top_p > 0.9999f;
  OpRunner run(cuda_device());
  std::vector<float> logits(size_t{kRows} * kVocab, other);
  for (size_t r = 0; r < kRows; ++r) {
    logits[r * kVocab + 39000 + r] = 5.0f;
    logits[r * kVocab + 100 * r] = 5.0f - std::log(1e4f);
    for (size_t i = 0; i < kVocab; ++i) {
      if (logits[r * kVocab + i] == other) logits[r * kVocab + i] += 5.0f;
    }
  }
  const DeviceRound round(run, kVocab, false, 1);
  const TensorView p =
      run.floats(std::vector<float>(logits.size(), 7.0f), {int64_t{kRows}, int64_t{kVocab}});
  SamplingTransform transform;
  transform.temperature = 1.0f;
  transform.top_p = top_p;
  run.backend->distribution(round.view, run.floats(logits, {int64_t{kRows}, int64_t{kVocab}}),
                            transform, 1, nullptr, p, *run.stream);
  const std::vector<float> probs = run.fetch(p);
  CAPTURE(top_p, other);
  for (size_t r = 0; r < kRows; ++r) {
    const auto row = probs.begin() + static_cast<std::ptrdiff_t>(r * kVocab);
    CHECK(std::count_if(row, row + kVocab, [](float x) { return x > 0; }) ==
          (takes_second ? 2 : 1));
    CHECK(probs[r * kVocab + 39000 + r] == Approx(takes_second ? 1 / 1.0001 : 1.0).epsilon(1e-6));
    CHECK((probs[r * kVocab + 100 * r] > 0) == takes_second);
  }
}

TEST_CASE("CUDA choices and distributions in few launches", "[cuda][sanitize]") {
  if (!has_gpu()) return;
  check_choices(GENERATE(50, 700), 5);
}

TEST_CASE("CUDA joins the largest of shares as the largest of whole rows", "[cuda][sanitize]") {
  if (!has_gpu()) return;
  constexpr int kRows = 6, kShares = 3;
  const int vocab = GENERATE(50, 6000, 128256);
  OpRunner run(cuda_device());
  auto logits = random_bf16(static_cast<size_t>(kRows * vocab), 21, 3.0f);  // has many ties
  const auto row = [&](int r) { return logits.begin() + r * vocab; };
  std::fill(row(1), row(2), 1.5f);
  *(row(2) + vocab / 2) = std::numeric_limits<float>::quiet_NaN();
  *(row(2) + vocab - 1) = std::numeric_limits<float>::quiet_NaN();
  std::fill(row(3), row(4), -std::numeric_limits<float>::infinity());
  std::fill(row(4), row(5), -std::numeric_limits<float>::quiet_NaN());
  std::fill(row(5), logits.end(), -1.0f);
  *(row(5) + 3) = -0.0f;  // as large as 0
  *(row(5) + vocab - 1) = 0.0f;
  RoundView round;
  round.vocab = vocab;
  auto* const whole = run.array(std::vector<int32_t>(kRows, -1));
  run.backend->argmax(round, run.floats(logits, {kRows, vocab}), {}, 0, nullptr, whole,
                      *run.stream);
  const TensorView choices =
      run.ints(std::vector<int32_t>(static_cast<size_t>(kShares) * kRows * 2, -1))
          .reshaped({int64_t{kShares} * kRows, 2});
  const int share = (vocab + kShares - 1) / kShares;
  for (int i = 0; i < kShares; ++i) {
    const int begin = i * share, columns = std::min(share, vocab - begin);
    std::vector<float> part;
    for (int r = 0; r < kRows; ++r) {
      part.insert(part.end(), row(r) + begin, row(r) + begin + columns);
    }
    run.backend->share_argmax(run.floats(part, {kRows, columns}), begin,
                              choices.rows(int64_t{i} * kRows, kRows), *run.stream);
  }
  auto* const joined = run.array(std::vector<int32_t>(kRows, -1));
  run.backend->join_argmax(choices.reshaped({kShares, kRows, 2}), joined, *run.stream);
  CHECK(run.fetch(joined, kRows) == run.fetch(whole, kRows));
  CHECK(run.fetch(joined, kRows)[5] == 3);
}

TEST_CASE("CUDA rows and log-probabilities agree with the CPU", "[cuda][sanitize]") {
  if (!has_gpu()) return;
  OpRunner cuda(cuda_device()), cpu(cpu_device());
  const auto logits = random_bf16(3 * 5000, 8, 4.0f);
  std::vector<int32_t> rows_seen[2], top[2];
  std::vector<float> values[2];
  for (int i = 0; i < 2; ++i) {
    OpRunner& run = i == 0 ? cuda : cpu;
    const DeviceRound round(run, 50, false, 2);
    const TensorView all = run.ints(std::vector<int32_t>(24, -5));
    Rows rows;
    rows.count = 6;
    rows.tokens = all.rows(0, 6);
    rows.positions = all.rows(6, 6);
    rows.slots = all.rows(12, 6);
    rows.sequences = all.rows(18, 6);
    run.backend->round_rows(round.view, -1, 4, rows, *run.stream);
    rows_seen[i] = run.fetch(all.as<int32_t>(), 24);
    const int32_t* ids = run.array<int32_t>({17, 4999, 0});
    float* out = run.array(std::vector<float>(3 + 12 + 3));
    int32_t* top_ids = run.array(std::vector<int32_t>(12));
    run.backend->log_probabilities(run.floats(logits, {3, 5000}), ids, 4, out, top_ids, out + 3,
                                   out + 15, *run.stream);
    values[i] = run.fetch(out, 18);
    top[i] = run.fetch(top_ids, 12);
  }
  CHECK(rows_seen[0] == rows_seen[1]);
  CHECK(top[0] == top[1]);
  for (size_t i = 0; i < values[0].size(); ++i)
    CHECK(std::fabs(values[0][i] - values[1][i]) < 2e-5f);
}
