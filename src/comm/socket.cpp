#include "comm/socket.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>

namespace tandem {
namespace {

constexpr uint32_t kFrameMark = 0x6d646e74;  // "tndm" on the wire of a little-endian host

struct FrameHead {
  uint32_t mark = kFrameMark;
  uint32_t kind = 0;
  uint64_t bytes = 0;
};
static_assert(sizeof(FrameHead) == 16);

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Addresses resolve(const char* address, int port, int flags, std::string& problem) {
  addrinfo wanted = {};
  wanted.ai_family = AF_UNSPEC;
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int status = getaddrinfo(address, std::to_string(port).c_str(), &wanted, &found);
  if (status != 0) problem = gai_strerror(status);
  return {status == 0 ? found : nullptr, &freeaddrinfo};
}

void prepare(int descriptor) {
  const int on = 1;
  (void)setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

bool wait_for(int descriptor, short events) {
  pollfd waiting = {descriptor, events, 0};
  return poll(&waiting, 1, static_cast<int>(kLookInterval.count())) > 0;
}

std::string numeric(const sockaddr_storage& address, socklen_t length) {
  char host[NI_MAXHOST] = {};
  const int status = getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host,
                                 sizeof(host), nullptr, 0, NI_NUMERICHOST);
  std::string text = status == 0 ? host : "";
  constexpr std::string_view kMapped = "::ffff:";  // an IPv4 address on an IPv6 socket
  if (text.rfind(kMapped, 0) == 0) text.erase(0, kMapped.size());
  return text;
}

/// -1 where this interface cannot listen; `error` says why.
int listen_on(const addrinfo& address, int& error) {
  constexpr int kBacklog = 128;
  const int descriptor = ::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (descriptor < 0) {
    error = errno;
    return -1;
  }
  const int on = 1;
  (void)setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(descriptor, address.ai_addr, address.ai_addrlen) == 0 &&
      listen(descriptor, kBacklog) == 0) {
    return descriptor;
  }
  error = errno;
  ::close(descriptor);
  return -1;
}

/// A socket that tries a port of its own host may be given that very port, and answer itself.
bool talks_to_itself(int descriptor) {
  sockaddr_storage own = {}, peer = {};
  socklen_t own_length = sizeof(own), peer_length = sizeof(peer);
  return getsockname(descriptor, reinterpret_cast<sockaddr*>(&own), &own_length) == 0 &&
         getpeername(descriptor, reinterpret_cast<sockaddr*>(&peer), &peer_length) == 0 &&
         own_length == peer_length && std::memcmp(&own, &peer, own_length) == 0;
}

/// Closed where there is no connection now.
Socket connect_once(const addrinfo& address, const GiveUp& give_up) {
  Socket socket(::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.is_open()) return {};
  const int descriptor = socket.descriptor();
  if (::connect(descriptor, address.ai_addr, address.ai_addrlen) != 0) {
    if (errno != EINPROGRESS) return {};
    while (!wait_for(descriptor, POLLOUT)) give_up();
    int error = 0;
    socklen_t length = sizeof(error);
    if (getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &length) != 0 || error != 0) return {};
  }
  if (talks_to_itself(descriptor)) return {};
  prepare(descriptor);
  return socket;
}

}  // namespace

Socket& Socket::operator=(Socket&& other) noexcept {
  if (this != &other) {
    close();
    descriptor_ = std::exchange(other.descriptor_, -1);
  }
  return *this;
}

void Socket::close() noexcept {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
}

std::string Socket::own_address() const {
  sockaddr_storage address = {};
  socklen_t length = sizeof(address);
  if (getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
  return numeric(address, length);
}

std::string Socket::peer_address() const {
  sockaddr_storage address = {};
  socklen_t length = sizeof(address);
  if (getpeername(descriptor_, reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
  return numeric(address, length);
}

Listener::Listener(const std::string& address, int port) {
  int error = 0;
  std::string unknown;
  // The name may lead elsewhere (an address translated on its way): every interface, then.
  for (const char* const where : {address.c_str(), static_cast<const char*>(nullptr)}) {
    const Addresses found = resolve(where, port, AI_PASSIVE, unknown);
    for (const addrinfo* at = found.get(); at != nullptr && !socket_.is_open(); at = at->ai_next) {
      socket_ = Socket(listen_on(*at, error));
    }
    if (socket_.is_open() || error == EADDRINUSE || error == EACCES) break;
  }
  if (!socket_.is_open()) {
    throw DeviceError("cannot listen on port " + std::to_string(port) + " of " + address + ": " +
                      (error != 0 ? std::strerror(error) : unknown) +
                      "; choose another port with MASTER_PORT or --master-port");
  }
  sockaddr_storage bound = {};
  socklen_t length = sizeof(bound);
  (void)getsockname(socket_.descriptor(), reinterpret_cast<sockaddr*>(&bound), &length);
  port_ = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                            : reinterpret_cast<sockaddr_in&>(bound).sin_port);
}

Socket Listener::accept(const GiveUp& give_up) {
  while (true) {
    const int descriptor =
        accept4(socket_.descriptor(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (descriptor >= 0) {
      prepare(descriptor);
      return Socket(descriptor);
    }
    (void)wait_for(socket_.descriptor(), POLLIN);
    give_up();
  }
}

Socket connect_to(const std::string& address, int port, const GiveUp& give_up) {
  while (true) {
    std::string problem;
    const Addresses found = resolve(address.c_str(), port, 0, problem);
    for (const addrinfo* at = found.get(); at != nullptr; at = at->ai_next) {
      Socket socket = connect_once(*at, give_up);
      if (socket.is_open()) return socket;
    }
    give_up();
    std::this_thread::sleep_for(kLookInterval);
  }
}

void send_all(const Socket& socket, std::span<const std::byte> bytes, const GiveUp& give_up) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket.descriptor(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      bytes = bytes.subspan(static_cast<size_t>(sent));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      if (!wait_for(socket.descriptor(), POLLOUT)) give_up();
    } else if (errno != EINTR) {
      throw ConnectionLost(std::string("the connection broke: ") + std::strerror(errno));
    }
  }
}

void receive_all(const Socket& socket, std::span<std::byte> bytes, const GiveUp& give_up) {
  while (!bytes.empty()) {
    const ssize_t got = ::recv(socket.descriptor(), bytes.data(), bytes.size(), 0);
    if (got > 0) {
      bytes = bytes.subspan(static_cast<size_t>(got));
    } else if (got == 0) {
      throw ConnectionLost("the connection was closed");
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      if (!wait_for(socket.descriptor(), POLLIN)) give_up();
    } else if (errno != EINTR) {
      throw ConnectionLost(std::string("the connection broke: ") + std::strerror(errno));
    }
  }
}

bool readable(const Socket& socket) { return wait_for(socket.descriptor(), POLLIN); }

void send_frame(const Socket& socket, uint32_t kind, std::string_view payload,
                const GiveUp& give_up) {
  if (payload.size() > kMaxFrameBytes) throw ShapeError("a message between processes is too long");
  const FrameHead head{kFrameMark, kind, payload.size()};
  std::string whole(reinterpret_cast<const char*>(&head), sizeof(head));
  whole += payload;
  send_all(socket, std::as_bytes(std::span(whole)), give_up);
}

Frame receive_frame(const Socket& socket, const GiveUp& give_up) {
  FrameHead head;
  receive_all(socket, std::as_writable_bytes(std::span(&head, 1)), give_up);
  if (head.mark != kFrameMark || head.bytes > kMaxFrameBytes) {
    throw ConnectionLost("what came over the connection is no message of tandem's");
  }
  Frame frame{head.kind, std::string(head.bytes, '\0')};
  receive_all(socket, std::as_writable_bytes(std::span(frame.payload)), give_up);
  return frame;
}

}  // namespace tandem
