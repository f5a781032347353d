#pragma once

#include <stdexcept>
#include <string>

namespace tandem {

/// Process exit codes of the command line (what `Error::exit_code` returns).
enum class ExitCode : int {
  kOk = 0,
  kRuntime = 1,  ///< failed while running
  kUsage = 2,    ///< bad usage, configuration or model files
  kMemory = 3,   ///< does not fit in memory
};

/// Base of everything that tandem throws on purpose. `what()` is one line that says what, where and
/// what to do.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, ExitCode code = ExitCode::kRuntime)
      : std::runtime_error(message), code_(code) {}
  ExitCode exit_code() const noexcept { return code_; }

 private:
  ExitCode code_;
};

/// A request or a command line that cannot be honoured: empty prompt, negative temperature, invalid
/// UTF-8.
class UsageError : public Error {
 public:
  explicit UsageError(const std::string& message) : Error(message, ExitCode::kUsage) {}
};

/// A configuration file with an unknown key, a wrong type or a value out of range.
class ConfigError : public Error {
 public:
  explicit ConfigError(const std::string& message) : Error(message, ExitCode::kUsage) {}
};

/// A model folder that is missing, damaged, contradictory or of an unknown kind; a pair that does
/// not match.
class ModelError : public Error {
 public:
  explicit ModelError(const std::string& message) : Error(message, ExitCode::kUsage) {}
};

/// Views whose shapes, types or devices do not fit together: a mistake of the calling code.
class ShapeError : public Error {
 public:
  explicit ShapeError(const std::string& message) : Error(message, ExitCode::kRuntime) {}
};

/// Something does not fit in memory; names the device and the missing bytes.
class MemoryError : public Error {
 public:
  explicit MemoryError(const std::string& message) : Error(message, ExitCode::kMemory) {}
};

/// Work that was given up because the caller asked for it; everything taken for it was returned.
class CancelledError : public Error {
 public:
  explicit CancelledError(const std::string& message) : Error(message, ExitCode::kRuntime) {}
};

/// A device or one of its libraries failed; names the call, the device and the remedy.
class DeviceError : public Error {
 public:
  explicit DeviceError(const std::string& message) : Error(message, ExitCode::kRuntime) {}
};

}  // namespace tandem
