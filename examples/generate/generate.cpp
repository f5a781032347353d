// Continues a prompt and says how much of the text the draft model proposed.
//
//   example_generate CONFIG PROMPT

#include <iostream>

#include <tandem/tandem.h>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: example_generate CONFIG PROMPT\n";
    return 2;
  }
  try {
    const auto engine = tandem::Engine::from_config(argv[1]);
    tandem::SamplingParams params;
    params.max_tokens = 100;
    const auto print = [](const tandem::TextPiece& piece) {
      std::cout << piece.text << std::flush;
    };
    const tandem::Completion completion = engine->generate(argv[2], params, print);
    const tandem::Stats& stats = completion.stats;
    std::cout << "\n\n"
              << stats.num_tokens << " tokens in " << stats.num_rounds << " rounds, "
              << 100 * stats.acceptance_rate() << " % of the drafted tokens accepted\n";
    return 0;
  } catch (const tandem::Error& error) {
    std::cerr << error.what() << "\n";
    return static_cast<int>(error.exit_code());
  }
}
