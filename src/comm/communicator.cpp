#include "comm/communicator.h"

#include <string>

#include "tandem/error.h"

namespace tandem {

void Communicator::check_rank(int rank) const {
  if (rank < 0 || rank >= size())
    throw ShapeError("communication: there is no rank " + std::to_string(rank));
}

void Communicator::check_other(int other) const {
  check_rank(other);
  if (other == rank())
    throw ShapeError("communication: rank " + std::to_string(other) + " cannot send to itself");
}

}  // namespace tandem
