#pragma once

namespace tandem::test {

/// Whether this program was built with AddressSanitizer or ThreadSanitizer: everything costs ten
/// times as much, and the memory of a process holds the sanitizer's own.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
inline constexpr bool kSanitized =
    __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace tandem::test
