#include "tokenizer/decoder_pipeline.h"

#include "core/text.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/utf8.h"

namespace tandem {
namespace {

using Stage = DecoderPipeline::Stage;

class Collect : public Stage {
 public:
  explicit Collect(std::string& output) : output_(output) {}
  void part(std::string_view text) override { output_ += text; }
  void end_token() override {}
  void finish() override {}

 private:
  std::string& output_;
};

/// A stage that hands its result to another.
class Link : public Stage {
 public:
  explicit Link(Stage& next) : next_(next) {}
  void finish() override { next_.finish(); }

 protected:
  Stage& next_;
};

/// A stage that needs the whole token. Most tokens arrive in one part, which is then looked at in
/// place.
class WholeToken : public Link {
 public:
  using Link::Link;
  void part(std::string_view text) override { token_ += text; }
  void end_token() override {
    whole(token_);
    token_.clear();
  }

 protected:
  virtual void whole(std::string_view token) = 0;
  void pass(std::string_view token) {
    next_.part(token);
    next_.end_token();
  }

 private:
  std::string token_;
};

class ReplaceStage : public WholeToken {
 public:
  ReplaceStage(const decoder_step::Replace& step, Stage& next) : WholeToken(next), step_(step) {}

 protected:
  void whole(std::string_view token) override { pass(step_.pattern.replace(token, step_.content)); }

 private:
  const decoder_step::Replace& step_;
};

class ByteLevelStage : public WholeToken {
 public:
  using WholeToken::WholeToken;
  void finish() override {
    release(true);
    next_.end_token();
    next_.finish();
  }

 protected:
  void whole(std::string_view token) override {
    if (const auto bytes = byte_level::bytes_of(token)) {
      bytes_ += *bytes;
    } else {
      bytes_ += token;
    }
    release(false);
  }

 private:
  void release(bool final) {
    std::string text;
    bytes_.erase(0, utf8::append_lossy(text, bytes_, final));
    next_.part(text);
  }

  std::string bytes_;  ///< the beginning of a character
};

class ByteFallbackStage : public WholeToken {
 public:
  using WholeToken::WholeToken;
  void finish() override {
    end_run();
    next_.finish();
  }

 protected:
  void whole(std::string_view token) override {
    if (const auto byte = byte_fallback_value(token)) {
      run_.push_back(static_cast<char>(*byte));
      return;
    }
    end_run();
    pass(token);
  }

 private:
  /// One wrong byte spoils the whole run, so nothing of a run is final before it ends.
  void end_run() {
    if (run_.empty()) return;
    if (!find_invalid_utf8(run_)) {
      pass(run_);
    } else {
      std::string replacement;
      utf8::append(replacement, utf8::kReplacement);
      for (size_t i = 0; i < run_.size(); ++i) pass(replacement);
    }
    run_.clear();
  }

  std::string run_;
};

class FuseStage : public Link {
 public:
  using Link::Link;
  void part(std::string_view text) override { next_.part(text); }
  void end_token() override {}
  void finish() override {
    next_.end_token();
    next_.finish();
  }
};

class StripStage : public Link {
 public:
  StripStage(const decoder_step::Strip& step, Stage& next)
      : Link(next), step_(step), to_strip_(step.start) {
    utf8::append(content_, step.content);
  }

  void part(std::string_view text) override {
    while (to_strip_ > 0 && !text.empty()) {
      if (text.starts_with(content_)) {
        text.remove_prefix(content_.size());
        --to_strip_;
      } else {
        to_strip_ = 0;
      }
    }
    if (step_.stop == 0) return next_.part(text);
    size_t trailing = 0;  // how many characters at the end may yet be stripped
    for (std::string_view rest = text; trailing < step_.stop && rest.ends_with(content_);
         ++trailing) {
      rest.remove_suffix(content_.size());
    }
    const std::string_view body = text.substr(0, text.size() - trailing * content_.size());
    if (!body.empty()) {
      release(held_);
      next_.part(body);
    }
    held_ += trailing;
    if (held_ > step_.stop) release(held_ - step_.stop);
  }

  void end_token() override {
    held_ = 0;
    to_strip_ = step_.start;
    next_.end_token();
  }

 private:
  void release(size_t count) {
    held_ -= count;
    for (; count > 0; --count) next_.part(content_);
  }

  const decoder_step::Strip& step_;
  std::string content_;  ///< the character to strip
  size_t to_strip_;      ///< still to be stripped from the start of this token
  size_t held_ = 0;      ///< so many of the character at the end of this token so far are held back
};

class MetaspaceStage : public Link {
 public:
  MetaspaceStage(const decoder_step::Metaspace& step, Stage& next) : Link(next), step_(step) {}
  void part(std::string_view text) override {
    std::string result;
    for (size_t i = 0; i < text.size();) {
      const char32_t c = utf8::decode(text, i);
      if (c != step_.replacement) {
        utf8::append(result, c);
      } else if (!in_first_token_ || !step_.drop_in_first) {
        result += ' ';
      }
    }
    next_.part(result);
  }
  void end_token() override {
    in_first_token_ = false;
    next_.end_token();
  }

 private:
  const decoder_step::Metaspace& step_;
  bool in_first_token_ = true;
};

class SpacesStage : public Link {
 public:
  using Link::Link;
  void part(std::string_view text) override {
    if (space_due_) next_.part(" ");
    space_due_ = false;
    next_.part(text);
  }
  void end_token() override {
    part("");  // a space stands before an empty token too
    space_due_ = true;
  }

 private:
  bool space_due_ = false;
};

std::unique_ptr<Stage> make_stage(const DecoderStep& step, Stage& next) {
  struct Maker {
    Stage& next;
    std::unique_ptr<Stage> operator()(const decoder_step::Replace& s) const {
      return std::make_unique<ReplaceStage>(s, next);
    }
    std::unique_ptr<Stage> operator()(const decoder_step::ByteLevel&) const {
      return std::make_unique<ByteLevelStage>(next);
    }
    std::unique_ptr<Stage> operator()(const decoder_step::ByteFallback&) const {
      return std::make_unique<ByteFallbackStage>(next);
    }
    std::unique_ptr<Stage> operator()(const decoder_step::Fuse&) const {
      return std::make_unique<FuseStage>(next);
    }
    std::unique_ptr<Stage> operator()(const decoder_step::Strip& s) const {
      return std::make_unique<StripStage>(s, next);
    }
    std::unique_ptr<Stage> operator()(const decoder_step::Metaspace& s) const {
      return std::make_unique<MetaspaceStage>(s, next);
    }
    std::unique_ptr<Stage> operator()(const decoder_step::Spaces&) const {
      return std::make_unique<SpacesStage>(next);
    }
  };
  return std::visit(Maker{next}, step);
}

}  // namespace

DecoderPipeline::DecoderPipeline(const Decoder& decoder) {
  stages_.push_back(std::make_unique<Collect>(output_));
  const std::vector<DecoderStep>& steps = decoder.steps();
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    stages_.push_back(make_stage(*step, *stages_.back()));
  }
}

void DecoderPipeline::push(std::string_view token, std::string& text) {
  stages_.back()->part(token);
  stages_.back()->end_token();
  text += output_;
  output_.clear();
}

void DecoderPipeline::finish(std::string& text) {
  stages_.back()->finish();
  text += output_;
  output_.clear();
}

}  // namespace tandem
