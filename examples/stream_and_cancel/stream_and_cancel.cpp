// Writes for a limited time: another thread cancels the request when the time is up. Shows
// `submit`, which does not wait, and what a cancelled completion holds.
//
//   example_stream_and_cancel CONFIG PROMPT MILLISECONDS

#include <chrono>
#include <iostream>
#include <string>
#include <thread>

#include <tandem/tandem.h>

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: example_stream_and_cancel CONFIG PROMPT MILLISECONDS\n";
    return 2;
  }
  try {
    const auto engine = tandem::Engine::from_config(argv[1]);
    const std::chrono::milliseconds patience(std::stoi(argv[3]));

    tandem::Request request;
    request.prompt = std::string(argv[2]);
    request.params = engine->config().sampling;
    request.params.max_tokens = engine->info().max_model_len;
    request.params.ignore_eos = true;
    request.on_text = [](const tandem::TextPiece& piece) { std::cout << piece.text << std::flush; };

    tandem::RequestHandle handle = engine->submit(request);
    std::thread timer([handle, patience]() mutable {
      std::this_thread::sleep_for(patience);
      handle.cancel();  // does nothing to a request that has ended
    });
    const tandem::Completion completion = handle.wait().front();
    timer.join();

    std::cout << "\n\n"
              << completion.token_ids.size()
              << " tokens, ended by: " << name_of(completion.finish_reason) << "\n";
    return 0;
  } catch (const tandem::Error& error) {
    std::cerr << error.what() << "\n";
    return static_cast<int>(error.exit_code());
  }
}
