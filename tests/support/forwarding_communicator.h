#pragma once

#include <memory>
#include <string>
#include <utility>

#include "comm/communicator.h"

namespace tandem::test {

/// A communicator that passes everything on to another one. Tests override single operations.
class ForwardingCommunicator : public Communicator {
 public:
  explicit ForwardingCommunicator(std::unique_ptr<Communicator> inner) : inner_(std::move(inner)) {}
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  void all_reduce_sum(TensorView values, Stream& stream) override {
    inner_->all_reduce_sum(values, stream);
  }
  void all_gather(TensorView values, TensorView gathered, Stream& stream) override {
    inner_->all_gather(values, gathered, stream);
  }
  void broadcast(TensorView values, int root, Stream& stream) override {
    inner_->broadcast(values, root, stream);
  }
  void send(TensorView values, int to, Stream& stream) override {
    inner_->send(values, to, stream);
  }
  void recv(TensorView values, int from, Stream& stream) override {
    inner_->recv(values, from, stream);
  }
  void abort(const std::string& reason) override { inner_->abort(reason); }
  std::string failure() const override { return inner_->failure(); }
  bool waiting() const override { return inner_->waiting(); }

 private:
  std::unique_ptr<Communicator> inner_;
};

}  // namespace tandem::test
