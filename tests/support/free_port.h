#pragma once

#include "comm/socket.h"

namespace tandem::testing {

/// A port of this host that nobody listens on at this moment.
inline int free_port() { return Listener("127.0.0.1", 0).port(); }

}  // namespace tandem::testing
