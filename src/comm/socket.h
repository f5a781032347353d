#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "tandem/error.h"

namespace tandem {

/// The other end of a connection is gone.
class ConnectionLost : public DeviceError {
 public:
  using DeviceError::DeviceError;
};

/// A TCP connection that never blocks by itself, without Nagle's delay. Closes itself.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  ~Socket() { close(); }
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&& other) noexcept;

  int descriptor() const { return descriptor_; }
  bool is_open() const { return descriptor_ >= 0; }
  void close() noexcept;
  std::string own_address() const;   ///< numeric, without the port
  std::string peer_address() const;  ///< likewise

 private:
  int descriptor_ = -1;
};

/// Called every now and then while something waits (`kLookInterval`); throws to give up.
using GiveUp = std::function<void()>;
inline constexpr std::chrono::milliseconds kLookInterval{50};

/// Waits for connections on a port of this host.
class Listener {
 public:
  /// @param address what others call this host: only its interface listens where that is possible
  /// @param port    0: any
  /// @throws DeviceError when the port is taken
  Listener(const std::string& address, int port);

  int port() const { return port_; }
  Socket accept(const GiveUp& give_up);

 private:
  Socket socket_;
  int port_ = 0;
};

/// Tries again until there is a connection or `give_up` throws.
Socket connect_to(const std::string& address, int port, const GiveUp& give_up);

// All or nothing. @throws ConnectionLost; what `give_up` throws
void send_all(const Socket& socket, std::span<const std::byte> bytes, const GiveUp& give_up);
void receive_all(const Socket& socket, std::span<std::byte> bytes, const GiveUp& give_up);

/// Waits until there is something to read, for the look interval at most.
bool readable(const Socket& socket);

/// A message with its kind and its length in front.
struct Frame {
  uint32_t kind = 0;
  std::string payload;
};
/// Longer ones are refused: whoever sends them is no peer.
inline constexpr uint64_t kMaxFrameBytes = 16u << 20;

void send_frame(const Socket& socket, uint32_t kind, std::string_view payload,
                const GiveUp& give_up);
/// @throws ConnectionLost also for what is no frame
Frame receive_frame(const Socket& socket, const GiveUp& give_up);

}  // namespace tandem
