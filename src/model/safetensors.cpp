#include "model/safetensors.h"

#include <algorithm>
#include <array>
#include <set>

#include "model/json_text.h"
#include "tandem/error.h"

namespace tandem {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100ull << 20;
constexpr size_t kMaxTensorRank = 16;
constexpr int kBitsPerByte = 8;

struct ElementType {
  std::string_view name;
  uint64_t bits;
  std::optional<DType> dtype;
};

constexpr std::array<ElementType, 15> kElementTypes = {{
    {"F32", 32, DType::kF32},
    {"F16", 16, DType::kF16},
    {"BF16", 16, DType::kBF16},
    {"F64", 64, std::nullopt},
    {"F8_E4M3", 8, std::nullopt},
    {"F8_E5M2", 8, std::nullopt},
    {"I64", 64, std::nullopt},
    {"I32", 32, std::nullopt},
    {"I16", 16, std::nullopt},
    {"I8", 8, std::nullopt},
    {"U64", 64, std::nullopt},
    {"U32", 32, std::nullopt},
    {"U16", 16, std::nullopt},
    {"U8", 8, std::nullopt},
    {"BOOL", 8, std::nullopt},
}};

[[noreturn]] void fail(std::string_view file, const std::string& problem) {
  throw ModelError(std::string(file) + ": " + problem);
}

[[noreturn]] void fail_tensor(std::string_view file, const std::string& tensor,
                              const std::string& problem) {
  fail(file, "tensor " + shown_name(tensor) + " " + problem);
}

uint64_t header_length(std::span<const std::byte> file, std::string_view name) {
  if (file.size() < kLengthBytes) {
    fail(name,
         "is " + std::to_string(file.size()) + " bytes long, too short for a safetensors file");
  }
  uint64_t length = 0;
  for (uint64_t i = 0; i < kLengthBytes; ++i) {
    length |= static_cast<uint64_t>(file[i]) << (kBitsPerByte * i);
  }
  if (length > file.size() - kLengthBytes) {
    fail(name, "the header says it has " + std::to_string(length) +
                   " bytes, but the file has only " + std::to_string(file.size()) +
                   "; it is truncated or no safetensors file");
  }
  if (length > kMaxHeaderBytes) {
    fail(name, "the header has " + std::to_string(length) + " bytes; at most " +
                   std::to_string(kMaxHeaderBytes) + " are accepted");
  }
  return length;
}

/// Parses the header's JSON; unlike a plain parse it refuses a tensor that is named twice.
Json parse_header(std::string_view text, std::string_view name) {
  if (text.empty() || text.front() != '{')
    fail(name, "the header is no JSON object; not a safetensors file");
  std::set<std::string> seen;
  std::string twice;
  bool is_twice = false;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::key && depth == 1 &&
        !seen.insert(value.get<std::string>()).second) {
      twice = value.get<std::string>();
      is_twice = true;
    }
    return true;
  };
  Json header;
  try {
    header = Json::parse(text, watch);
  } catch (const Json::exception& error) {
    fail(name, "the header is " + describe(error));
  }
  if (!header.is_object()) fail(name, "the header is no JSON object; not a safetensors file");
  if (is_twice) fail_tensor(name, twice, "is named twice in the header");
  return header;
}

uint64_t unsigned_number(const Json& value, std::string_view file, const std::string& tensor,
                         const char* what) {
  if (!value.is_number_unsigned())
    fail_tensor(file, tensor, std::string("has ") + what + " that is no whole number");
  return value.get<uint64_t>();
}

const Json& member(const Json& entry, const char* key, std::string_view file,
                   const std::string& tensor) {
  const auto it = entry.find(key);
  if (it == entry.end()) fail_tensor(file, tensor, std::string("has no \"") + key + "\"");
  return *it;
}

std::vector<int64_t> read_shape(const Json& json, std::string_view file,
                                const std::string& tensor) {
  if (!json.is_array() || json.size() > kMaxTensorRank)
    fail_tensor(file, tensor, "has a \"shape\" that is no short list");
  std::vector<int64_t> shape;
  for (const Json& dim : json) {
    const uint64_t size = unsigned_number(dim, file, tensor, "a dimension");
    if (size > static_cast<uint64_t>(INT64_MAX))
      fail_tensor(file, tensor, "has a dimension that is too large");
    shape.push_back(static_cast<int64_t>(size));
  }
  return shape;
}

/// Checks that [begin, end) has as many bytes as shape and element type need.
void check_size(const SafetensorsEntry& entry, uint64_t element_bits, std::string_view file,
                const std::string& tensor) {
  uint64_t bits = element_bits;
  const bool empty = std::find(entry.shape.begin(), entry.shape.end(), 0) != entry.shape.end();
  for (int64_t dim : entry.shape) {
    if (!empty && __builtin_mul_overflow(bits, static_cast<uint64_t>(dim), &bits)) {
      fail_tensor(file, tensor, "has a shape whose size overflows");
    }
  }
  const uint64_t bytes = empty ? 0 : bits / kBitsPerByte;
  if (bytes != entry.end - entry.begin) {
    fail_tensor(file, tensor,
                "needs " + std::to_string(bytes) + " bytes for its shape and type " +
                    entry.dtype_name + ", but \"data_offsets\" gives it " +
                    std::to_string(entry.end - entry.begin));
  }
}

SafetensorsEntry read_entry(const Json& json, uint64_t data_start, uint64_t file_bytes,
                            std::string_view file, const std::string& tensor) {
  if (!json.is_object())
    fail_tensor(file, tensor, "is described by something that is no JSON object");
  SafetensorsEntry entry;
  const Json& dtype = member(json, "dtype", file, tensor);
  if (!dtype.is_string()) fail_tensor(file, tensor, "has a \"dtype\" that is no string");
  entry.dtype_name = dtype.get<std::string>();
  entry.shape = read_shape(member(json, "shape", file, tensor), file, tensor);

  const Json& offsets = member(json, "data_offsets", file, tensor);
  if (!offsets.is_array() || offsets.size() != 2)
    fail_tensor(file, tensor, "has no pair of \"data_offsets\"");
  const uint64_t begin = unsigned_number(offsets[0], file, tensor, "an offset");
  const uint64_t end = unsigned_number(offsets[1], file, tensor, "an offset");
  const uint64_t available = file_bytes - data_start;
  if (begin > end || end > available) {
    fail_tensor(file, tensor,
                "lies at bytes " + std::to_string(begin) + " to " + std::to_string(end) +
                    " of the data, which has " + std::to_string(available) +
                    " bytes; the file is truncated or damaged");
  }
  entry.begin = data_start + begin;
  entry.end = data_start + end;

  const auto type = std::find_if(kElementTypes.begin(), kElementTypes.end(),
                                 [&](const ElementType& t) { return t.name == entry.dtype_name; });
  if (type == kElementTypes.end()) return entry;  // refused only if somebody asks for its elements
  entry.dtype = type->dtype;
  check_size(entry, type->bits, file, tensor);
  return entry;
}

/// The data must be covered by the tensors without gap or overlap.
void check_coverage(const SafetensorsHeader& header, uint64_t data_start, uint64_t file_bytes,
                    std::string_view file) {
  std::vector<const SafetensorsHeader::value_type*> order;
  for (const auto& item : header) order.push_back(&item);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  uint64_t at = data_start;
  for (const auto* item : order) {
    if (item->second.begin < at) fail_tensor(file, item->first, "overlaps the tensor before it");
    if (item->second.begin > at) {
      fail_tensor(file, item->first,
                  "has " + std::to_string(item->second.begin - at) + " unused bytes before it");
    }
    at = item->second.end;
  }
  if (at != file_bytes)
    fail(file, std::to_string(file_bytes - at) + " bytes at the end belong to no tensor");
}

}  // namespace

SafetensorsHeader parse_safetensors(std::span<const std::byte> file, std::string_view name) {
  const uint64_t length = header_length(file, name);
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes, length);
  const Json json = parse_header(text, name);
  const uint64_t data_start = kLengthBytes + length;
  SafetensorsHeader header;
  for (const auto& [tensor, description] : json.items()) {
    if (tensor == "__metadata__") continue;
    header.emplace(tensor, read_entry(description, data_start, file.size(), name, tensor));
  }
  check_coverage(header, data_start, file.size(), name);
  return header;
}

}  // namespace tandem
