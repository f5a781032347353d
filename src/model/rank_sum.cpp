#include "model/rank_sum.h"

#include <algorithm>

namespace tandem {

void RankSum::add(TensorView terms, TensorView out, Stream& stream) {
  const int64_t rows = terms.dim(0);
  if (rows > kGatheredRows) {
    communicator_.all_reduce_sum(terms, stream);
    backend_.add(terms, out, stream);
    return;
  }
  if (peers_ != nullptr) {
    peers_->add(terms, out, stream);
    return;
  }
  const TensorView gathered = gathered_.rows(0, communicator_.size() * rows);
  communicator_.all_gather(terms, gathered, stream);
  backend_.add_parts(gathered, out, stream);
}

void RankSum::add_norm(TensorView terms, TensorView hidden, TensorView norm_weight,
                       const NormedRows& normed, Stream& stream) {
  const int64_t rows = terms.dim(0);
  if (rows > kGatheredRows || normed.squares.empty()) {
    add(terms, hidden, stream);
    backend_.rms_norm(hidden, norm_weight, normed.eps, normed.values, stream);
    return;
  }
  if (peers_ != nullptr) {
    peers_->add_norm(terms, hidden, norm_weight, normed, stream);
    return;
  }
  const TensorView gathered = gathered_.rows(0, communicator_.size() * rows);
  communicator_.all_gather(terms, gathered, stream);
  backend_.add_parts_norm(gathered, hidden, norm_weight, normed, stream);
}

void RankSum::join_argmax(TensorView choices, TensorView gathered, int32_t* ids, Stream& stream) {
  if (peers_ != nullptr && choices.dim(0) <= PeerExchange::kMostChoices) {
    peers_->join_argmax(choices, ids, stream);
    return;
  }
  communicator_.all_gather(choices, gathered, stream);
  if (ids != nullptr) backend_.join_argmax(gathered, ids, stream);
}

void RankSum::broadcast(TensorView values, int root, Stream& stream) {
  if (peers_ != nullptr && values.count() <= peers_->max_words()) {
    peers_->broadcast(values, root, stream);
  } else {
    communicator_.broadcast(values, root, stream);
  }
}

double RankSum::measure(TensorView terms, TensorView out, Stream& stream) {
  constexpr int kSums = 64, kRepeats = 5;
  const TensorView row = terms.rows(0, 1), to = out.rows(0, 1);
  backend_.fill_zero(row.data(), row.bytes(), stream);
  backend_.fill_zero(to.data(), to.bytes(), stream);
  const std::unique_ptr<Graph> graph = backend_.capture(stream, [&] {
    for (int i = 0; i < kSums; ++i) add(row, to, stream);
  });
  const std::unique_ptr<Event> begin = backend_.make_event(), end = backend_.make_event();
  double least = 0;
  for (int i = 0; i < kRepeats; ++i) {
    stream.record(*begin);
    graph->launch(stream);
    stream.record(*end);
    stream.synchronize();
    const double seconds = end->seconds_since(*begin);
    least = i == 0 ? seconds : std::min(least, seconds);
  }
  return least / kSums;
}

}  // namespace tandem
