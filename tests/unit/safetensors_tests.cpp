#include "model/safetensors.h"

#include <functional>

#include "core/mapped_file.h"
#include "model/weight_source.h"
#include "support/catch.h"
#include "support/safetensors_builder.h"
#include "support/temporary_folder.h"
#include "tandem/error.h"

namespace tandem {
namespace {

using test::padded;
using test::safetensors_bytes;
using test::write_file;

SafetensorsHeader parse(const std::string& bytes) {
  return parse_safetensors(std::as_bytes(std::span(bytes)), "x.safetensors");
}

/// The message of the ModelError that `action` must throw; checks that it is one line.
std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const ModelError& error) {
    const std::string message = error.what();
    CHECK(message.find('\n') == std::string::npos);
    CHECK(error.exit_code() == ExitCode::kUsage);
    return message;
  }
  FAIL("no ModelError");
  return "";
}

std::string parse_error(const std::string& bytes) {
  return error_of([&] { parse(bytes); });
}

std::string header_error(const std::string& header, size_t data_bytes) {
  return parse_error(safetensors_bytes(padded(header), data_bytes));
}

/// One tensor "w" of this description.
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"w":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets +
         "}}";
}

TEST_CASE("A safetensors header gives type, shape and place of every tensor") {
  const std::string header = padded(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},)"
      R"("b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]},"c":{"dtype":"F16","shape":[],"data_offsets":[20,22]},)"
      R"("d":{"dtype":"F16","shape":[0,4],"data_offsets":[22,22]}})");
  const SafetensorsHeader parsed = parse(safetensors_bytes(header, 22));
  REQUIRE(parsed.size() == 4);
  CHECK(parsed.at("a").dtype == DType::kBF16);
  CHECK(parsed.at("a").shape == std::vector<int64_t>{2, 3});
  CHECK(parsed.at("a").begin == 8 + header.size());
  CHECK(parsed.at("b").dtype == DType::kF32);
  CHECK(parsed.at("b").end == 8 + header.size() + 20);
  CHECK(parsed.at("c").shape.empty());
  CHECK(parsed.at("d").begin == parsed.at("d").end);
}

TEST_CASE("A type that cannot be read is refused only when its elements are asked for") {
  CHECK_FALSE(
      parse(safetensors_bytes(padded(one("I64", "[1]", "[0,8]")), 8)).at("w").dtype.has_value());
  CHECK_FALSE(
      parse(safetensors_bytes(padded(one("F4_NEW", "[3]", "[0,8]")), 8)).at("w").dtype.has_value());
}

TEST_CASE("Damaged and hostile safetensors headers are refused in one line") {
  CHECK_THAT(parse_error(""), ContainsText("too short"));
  CHECK_THAT(parse_error("1234567"), ContainsText("7 bytes long"));
  CHECK_THAT(parse_error(safetensors_bytes("{}", 0).substr(0, 9)), ContainsText("truncated"));
  CHECK_THAT(parse_error(std::string(8, '\xff') + "{}"), ContainsText("18446744073709551615"));
  CHECK_THAT(header_error("", 0), ContainsText("no JSON object"));
  CHECK_THAT(header_error("[1]", 0), ContainsText("no JSON object"));
  CHECK_THAT(header_error("{\"w\":", 0), ContainsText("not valid JSON"));
  CHECK_THAT(header_error("{\"w\xff\":1}", 0), ContainsText("not valid JSON"));
  CHECK_THAT(header_error(R"({"w":1})", 0), ContainsText("'w' is described"));
  CHECK_THAT(header_error(R"({"w":{"shape":[1],"data_offsets":[0,4]}})", 4),
             ContainsText("no \"dtype\""));
  CHECK_THAT(header_error(R"({"w":{"dtype":"F32","data_offsets":[0,4]}})", 4),
             ContainsText("no \"shape\""));
  CHECK_THAT(header_error(R"({"w":{"dtype":"F32","shape":[1]}})", 4),
             ContainsText("no \"data_offsets\""));
  CHECK_THAT(header_error(R"({"w":{"dtype":7,"shape":[1],"data_offsets":[0,4]}})", 4),
             ContainsText("no string"));
}

TEST_CASE(
    "Shapes and offsets of a safetensors header are checked against each other and the file") {
  CHECK_NOTHROW(parse(safetensors_bytes(padded(one("F32", "[2,2]", "[0,16]")), 16)));
  SECTION("beyond the file") {
    CHECK_THAT(header_error(one("F32", "[2,2]", "[0,16]"), 12), ContainsText("which has 12 bytes"));
    CHECK_THAT(header_error(one("F32", "[2,2]", "[18446744073709551600,18446744073709551615]"), 16),
               ContainsText("truncated or damaged"));
  }
  SECTION("end before begin") {
    CHECK_THAT(header_error(one("F32", "[1]", "[8,4]"), 8), ContainsText("bytes 8 to 4"));
  }
  SECTION("wrong size for the shape") {
    CHECK_THAT(header_error(one("F32", "[2,3]", "[0,16]"), 16), ContainsText("needs 24 bytes"));
    CHECK_THAT(header_error(one("BF16", "[2,2]", "[0,16]"), 16), ContainsText("needs 8 bytes"));
  }
  SECTION("overflow") {
    CHECK_THAT(header_error(one("F32", "[4294967296,4294967296]", "[0,0]"), 0),
               ContainsText("overflows"));
    CHECK_THAT(header_error(one("F32", "[9223372036854775808]", "[0,0]"), 0),
               ContainsText("too large"));
    CHECK_NOTHROW(
        parse(safetensors_bytes(padded(one("F32", "[4294967296,4294967296,0]", "[0,0]")), 0)));
  }
  SECTION("no whole numbers") {
    CHECK_THAT(header_error(one("F32", "[-1]", "[0,4]"), 4), ContainsText("whole number"));
    CHECK_THAT(header_error(one("F32", "[1.0]", "[0,4]"), 4), ContainsText("whole number"));
    CHECK_THAT(header_error(one("F32", "[1]", "[0,\"4\"]"), 4), ContainsText("whole number"));
    CHECK_THAT(header_error(one("F32", "[1]", "[0,2,4]"), 4), ContainsText("no pair"));
    CHECK_THAT(header_error(one("F32", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,4]"), 4),
               ContainsText("short list"));
  }
  SECTION("overlap, hole, rest") {
    const auto two = [](const std::string& first, const std::string& second) {
      return R"({"a":{"dtype":"F32","shape":[2],"data_offsets":)" + first +
             R"(},"w":{"dtype":"F32","shape":[2],"data_offsets":)" + second + "}}";
    };
    CHECK_NOTHROW(parse(safetensors_bytes(padded(two("[8,16]", "[0,8]")), 16)));
    CHECK_THAT(header_error(two("[0,8]", "[4,12]"), 12), ContainsText("'w' overlaps"));
    CHECK_THAT(header_error(two("[0,8]", "[0,8]"), 8), ContainsText("overlaps"));
    CHECK_THAT(header_error(two("[0,8]", "[12,20]"), 20), ContainsText("4 unused bytes"));
    CHECK_THAT(header_error(two("[0,8]", "[8,16]"), 20), ContainsText("4 bytes at the end"));
  }
  SECTION("named twice") {
    const std::string header = R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                               R"("w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
    CHECK_THAT(header_error(header, 4), ContainsText("'w' is named twice"));
  }
  SECTION("names that would break the line") {
    const std::string header =
        R"({"a\nb\u001b[1m":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})";
    CHECK_THAT(header_error(header, 8), ContainsText(R"('a\nb\u001b[1m')"));
  }
}

TEST_CASE("A header of many nested brackets does not exhaust the stack") {
  CHECK_THAT(parse_error(safetensors_bytes("{\"w\":" + std::string(1 << 20, '['), 0)),
             ContainsText("not valid JSON"));
}

/// A folder of weights with w (2, 3) = 0 … 5 as f32 and, behind it, v (2) = 6, 7.
std::string weights_file(const std::string& more_header = "") {
  std::string bytes = safetensors_bytes(
      padded(
          R"({"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"v":{"dtype":"F32","shape":[2],)"
          R"("data_offsets":[24,32]})" +
          more_header + "}"),
      32);
  for (int i = 0; i < 8; ++i) {
    const auto value = static_cast<float>(i);
    std::copy_n(reinterpret_cast<const char*>(&value), sizeof value,
                bytes.end() - 32 + static_cast<ptrdiff_t>(i * sizeof value));
  }
  return bytes;
}

TEST_CASE("Weights come from one file or from the shards of an index") {
  const testing::TemporaryFolder folder;
  SECTION("one file") { write_file(folder.path() / "model.safetensors", weights_file()); }
  SECTION("shards") {
    write_file(folder.path() / "part-1.safetensors", weights_file());
    write_file(folder.path() / "part-2.safetensors",
               safetensors_bytes(padded(one("F16", "[1]", "[0,2]")), 2));
    write_file(folder.path() / "model.safetensors.index.json",
               R"({"weight_map":{"w":"part-1.safetensors","v":"part-1.safetensors"}})");
  }
  const std::unique_ptr<WeightSource> source = open_weights(folder.path());
  REQUIRE(source->has("w"));
  CHECK_FALSE(source->has("x"));
  CHECK(source->info("w").shape == Shape{2, 3});
  CHECK(source->info("v").shape == Shape{2});
  for (int pass = 0; pass < 2; ++pass) {  // a tensor can be read again after it was let go
    const HostMatrix w = source->tensor("w");
    CHECK((w.rows == 2 && w.cols == 3 && w.row_stride == 3 && w.dtype == DType::kF32));
    CHECK(static_cast<const float*>(w.data)[5] == 5.0f);
    source->done_with("w");
  }
  const HostMatrix v = source->tensor("v");
  CHECK((v.rows == 1 && v.cols == 2));
  CHECK(static_cast<const float*>(v.data)[1] == 7.0f);
  CHECK_THAT(error_of([&] { source->info("x"); }), ContainsText("no tensor 'x'"));
}

TEST_CASE("Tensors that begin between two multiples of their element size are copied to one") {
  const testing::TemporaryFolder folder;
  std::string bytes = weights_file();
  bytes.insert(bytes.find('}') + 1, " ");  // inside the header: the data moves by a byte
  ++bytes.front();
  write_file(folder.path() / "model.safetensors", bytes);
  REQUIRE(parse(bytes).at("w").begin % sizeof(float) == 1);
  const std::unique_ptr<WeightSource> source = open_weights(folder.path());
  for (int pass = 0; pass < 2; ++pass) {  // a tensor can be read again after it was let go
    const HostMatrix w = source->tensor("w"), v = source->tensor("v");
    REQUIRE(reinterpret_cast<uintptr_t>(w.data) % alignof(float) == 0);
    REQUIRE(reinterpret_cast<uintptr_t>(v.data) % alignof(float) == 0);
    for (int i = 0; i < 6; ++i) {
      CHECK(static_cast<const float*>(w.data)[i] == static_cast<float>(i));
    }
    CHECK(static_cast<const float*>(v.data)[1] == 7.0f);
    CHECK(source->tensor("w").data == w.data);
    source->done_with("w");
    source->done_with("v");
  }
}

TEST_CASE("Folders whose weights cannot be read are refused in one line") {
  const testing::TemporaryFolder folder;
  const auto open_error = [&] { return error_of([&] { open_weights(folder.path()); }); };
  const std::filesystem::path index = folder.path() / "model.safetensors.index.json";
  SECTION("no weights") {
    CHECK_THAT(open_error(), ContainsText("holds neither model.safetensors nor"));
  }
  SECTION("empty file") {
    write_file(folder.path() / "model.safetensors", "");
    CHECK_THAT(open_error(), ContainsText("is empty"));
  }
  SECTION("truncated file") {
    write_file(folder.path() / "model.safetensors", weights_file().substr(0, 120));
    CHECK_THAT(open_error(), ContainsText("truncated"));
  }
  SECTION("an index that is no JSON") {
    write_file(index, "{");
    CHECK_THAT(open_error(), ContainsText("not valid JSON"));
  }
  SECTION("an index without a map") {
    write_file(index, R"({"metadata":{}})");
    CHECK_THAT(open_error(), ContainsText("\"weight_map\" is missing"));
  }
  SECTION("an index that is an array") {
    write_file(index, "[]");
    CHECK_THAT(open_error(), ContainsText("not a JSON object"));
  }
  SECTION("a shard that is missing") {
    write_file(index, R"({"weight_map":{"w":"part.safetensors"}})");
    CHECK_THAT(open_error(), ContainsText("part.safetensors"));
  }
  SECTION("a shard that does not hold its tensor") {
    write_file(folder.path() / "part.safetensors", weights_file());
    write_file(index, R"({"weight_map":{"x":"part.safetensors"}})");
    CHECK_THAT(open_error(), ContainsText("does not hold it"));
  }
  SECTION("a shard outside the folder") {
    for (const char* name : {"../part.safetensors", "/etc/passwd", "..", ""}) {
      write_file(index, std::string(R"({"weight_map":{"w":")") + name + "\"}}");
      CHECK_THAT(open_error(), ContainsText("not in the model's folder"));
    }
  }
  SECTION("a shard without a name") {
    write_file(index, R"({"weight_map":{"w":3}})");
    CHECK_THAT(open_error(), ContainsText("no file name"));
  }
}

TEST_CASE("Tensors that are no weights are refused when they are asked for") {
  const testing::TemporaryFolder folder;
  write_file(folder.path() / "model.safetensors",
             safetensors_bytes(padded(one("I64", "[1]", "[0,8]")), 8));
  CHECK_THAT(error_of([&] { open_weights(folder.path())->tensor("w"); }),
             ContainsText("elements of type I64"));
  write_file(folder.path() / "model.safetensors",
             safetensors_bytes(padded(one("F16", "[1,1,4]", "[0,8]")), 8));
  CHECK_THAT(error_of([&] { open_weights(folder.path())->tensor("w"); }),
             ContainsText("has 3 dimensions"));
}

}  // namespace
}  // namespace tandem
