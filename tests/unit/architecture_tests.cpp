// The rules of the project's structure, held against the tree itself; and the checker of these
// rules, held against small trees made up to break one rule each.

#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.h"
#include "unit/architecture_rules.h"

namespace tandem::testing {
namespace {

namespace fs = std::filesystem;

/// A source tree in a temporary folder, gone when the object is.
class MadeUpTree {
 public:
  explicit MadeUpTree(const std::vector<std::pair<std::string, std::string>>& files) {
    root_ = fs::temp_directory_path() /
            ("tandem_architecture_" + std::to_string(std::random_device{}()));
    fs::create_directories(root_ / "src");
    for (const auto& [name, text] : files) {
      fs::create_directories((root_ / name).parent_path());
      std::ofstream(root_ / name) << text;
    }
  }
  ~MadeUpTree() {
    std::error_code ignored;  // a leftover in the temporary folder harms nobody
    fs::remove_all(root_, ignored);
  }
  MadeUpTree(const MadeUpTree&) = delete;
  MadeUpTree& operator=(const MadeUpTree&) = delete;

  std::vector<Violation> check() const { return check_architecture(root_); }

 private:
  fs::path root_;
};

/// Adds the files that the made-up include lines point to.
MadeUpTree tree_with(const std::string& name, const std::string& text) {
  return MadeUpTree({{"include/tandem/config.h", "#include <string>\n"},
                     {"src/core/dtype.h", ""},
                     {"src/backend/backend.h", "#include \"core/dtype.h\"\n"},
                     {"src/comm/communicator.h", "#include \"core/dtype.h\"\n"},
                     {"src/model/transformer.h", "#include \"backend/backend.h\"\n"},
                     {"src/tokenizer/tokenizer.h", ""},
                     {"src/plan/memory_plan.h", "#include \"model/transformer.h\"\n"},
                     {"src/spec/drafter.h", "#include \"model/transformer.h\"\n"},
                     {"src/engine/loader.h", "#include \"spec/drafter.h\"\n"},
                     {"src/cli/options.h", "#include \"engine/loader.h\"\n"},
                     {"kernels/matmul.h", "#include <cuda_runtime.h>\n"},
                     {name, text}});
}

TEST_CASE("the source tree follows the rules of its structure", "[architecture]") {
  const auto violations = check_architecture(TANDEM_SOURCE_DIR);
  INFO(describe(violations));
  CHECK(violations.empty());
}

TEST_CASE("the architecture checker accepts what the rules allow", "[architecture]") {
  const auto [name, text] = GENERATE(table<std::string, std::string>({
      {"src/cli/main.cpp",
       "#include \"cli/options.h\"\n#include \"core/dtype.h\"\n#include \"tandem/config.h\"\n"},
      {"src/engine/a.cpp", "#include \"plan/memory_plan.h\"\n#include \"tokenizer/tokenizer.h\"\n"},
      {"src/spec/a.cpp", "#include \"drafter.h\"\n#include <nlohmann/json.hpp>\n"},
      {"src/backend/cuda/a.cpp",
       "#include <cuda_runtime.h>\n#include \"matmul.h\"\n#ifdef TANDEM_CUDA\n#endif\n"},
      {"src/comm/nccl_communicator.cpp", "#include <nccl.h>\n"},
      {"kernels/a.cu", "#include \"matmul.h\"\n#include <cub/cub.cuh>\n"},
      {"include/tandem/engine.h",
       "#include \"tandem/config.h\"\n// cudaStream_t is no type of this header\n"},
      {"examples/a.cpp", "#include <tandem/config.h>\n"},
      {"tests/unit/a.cpp", "#include \"engine/loader.h\"\n"},
      {"tests/unit/long.cpp", std::string(kMaxLines, '\n')},
      {"tests/unit/vectors.json", std::string(kMaxLines + 1, '\n')},
  }));
  CAPTURE(name, text);
  const auto violations = tree_with(name, text).check();
  INFO(describe(violations));
  CHECK(violations.empty());
}

TEST_CASE("the architecture checker finds each kind of violation", "[architecture]") {
  const auto [name, line, text] = GENERATE(table<std::string, int, std::string>({
      // upwards and sideways between layers
      {"src/core/a.cpp", 2, "\n#include \"backend/backend.h\"\n"},
      {"src/backend/a.cpp", 1, "#include \"model/transformer.h\"\n"},
      {"src/backend/a.cpp", 1, "#include \"comm/communicator.h\"\n"},
      {"src/comm/a.cpp", 1, "#include \"backend/backend.h\"\n"},
      {"src/model/a.cpp", 1, "#include \"tokenizer/tokenizer.h\"\n"},
      {"src/spec/a.cpp", 1, "#include \"plan/memory_plan.h\"\n"},
      {"src/plan/a.cpp", 1, "#include \"spec/drafter.h\"\n"},
      {"src/spec/a.cpp", 1, "  #  include \"engine/loader.h\"\n"},
      {"src/engine/a.cpp", 1, "#include <cli/options.h>\n"},
      {"src/model/a.cpp", 1, "#include \"../spec/drafter.h\"\n"},
      {"src/model/a.cpp", 1, "#include \"matmul.h\"\n"},
      {"src/model/a.cpp", 1, "#include \"gone.h\"\n"},
      {"src/serving/a.cpp", 1, "#include \"core/dtype.h\"\n"},
      // CUDA and NCCL in the wrong place
      {"src/model/a.cpp", 1, "#include <cuda_fp16.h>\n"},
      {"src/backend/cpu/a.cpp", 1, "#include <cublasLt.h>\n"},
      {"bench/a.cpp", 1, "#include <cuda_runtime.h>\n"},
      {"src/backend/cuda/a.cpp", 1, "#include <nccl.h>\n"},
      {"src/engine/a.cpp", 1, "#ifdef TANDEM_CUDA\n#endif\n"},
      {"src/comm/a.cpp", 1, "#if defined(TANDEM_HAS_NCCL)\n#endif\n"},
      // the public headers
      {"include/tandem/a.h", 1, "#include <nlohmann/json.hpp>\n"},
      {"include/tandem/a.h", 1, "#include \"core/dtype.h\"\n"},
      {"include/tandem/a.h", 1, "#include <unistd.h>\n"},
      {"include/tandem/a.h", 2, "\ncudaStream_t stream();\n"},
      {"include/tandem/a.h", 1, "ncclComm_t comm();\n"},
      {"include/tandem/a.h", 1, "namespace nlohmann { class json; }\n"},
      // those who stand alone
      {"kernels/a.cu", 1, "#include \"core/dtype.h\"\n"},
      {"kernels/a.cu", 1, "#include \"tandem/config.h\"\n"},
      {"examples/a.cpp", 1, "#include \"engine/loader.h\"\n"},
      // length
      {"tests/unit/a.cpp", 0, std::string(kMaxLines + 1, '\n')},
      {"scripts/run", 0, std::string(kMaxLines + 1, '\n')},
  }));
  CAPTURE(name, text);
  const auto violations = tree_with(name, text).check();
  INFO(describe(violations));
  REQUIRE(violations.size() == 1);
  CHECK(violations[0].file == name);
  CHECK(violations[0].line == line);
}

TEST_CASE("the architecture checker wants NCCL's header in a single file", "[architecture]") {
  const MadeUpTree tree(
      {{"src/comm/a.cpp", "#include <nccl.h>\n"}, {"src/comm/b.cpp", "#include <nccl.h>\n"}});
  CHECK(tree.check().size() == 2);
}

TEST_CASE("the architecture checker refuses a tree without sources", "[architecture]") {
  REQUIRE_THROWS_AS(check_architecture(fs::path(TANDEM_SOURCE_DIR) / "cmake"), std::runtime_error);
}

}  // namespace
}  // namespace tandem::testing
