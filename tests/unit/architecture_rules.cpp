#include "unit/architecture_rules.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>

namespace tandem::testing {
namespace {

namespace fs = std::filesystem;

/// Height of each folder of src/. A file may include a folder that stands strictly lower, or its
/// own.
const std::map<std::string, int>& layer_heights() {
  static const std::map<std::string, int> heights = {
      {"core", 0}, {"backend", 1}, {"comm", 1},   {"model", 2}, {"tokenizer", 2},
      {"plan", 3}, {"spec", 3},    {"engine", 4}, {"bench", 5}, {"cli", 6}};
  return heights;
}

constexpr std::array kCheckedFolders = {"src",   "include",  "kernels", "tests", "bench",
                                        "tools", "examples", "scripts", "cmake"};

struct IncludeLine {
  int line = 0;
  std::string path;
  bool quoted = false;
};

struct SourceFile {
  std::string name;                   // relative to the tree, with slashes
  std::vector<std::string> segments;  // of `name`
  std::vector<std::string> lines;

  bool is_below(const std::string& folder) const { return name.rfind(folder + "/", 0) == 0; }
};

class Checker {
 public:
  explicit Checker(fs::path tree) : tree_(std::move(tree)) {}

  std::vector<Violation> run() {
    if (!fs::is_directory(tree_ / "src")) {
      throw std::runtime_error(tree_.string() + ": no folder src/ to check");
    }
    for (const char* folder : kCheckedFolders) {
      if (!fs::is_directory(tree_ / folder)) continue;
      std::vector<fs::path> paths;
      for (const auto& entry : fs::recursive_directory_iterator(tree_ / folder)) {
        if (entry.is_regular_file()) paths.push_back(entry.path());
      }
      std::sort(paths.begin(), paths.end());
      for (const auto& path : paths) check_file(path);
    }
    if (nccl_files_.size() > 1) {
      for (const auto& name : nccl_files_) {
        report(name, 0,
               "NCCL's header belongs in one file, " + std::to_string(nccl_files_.size()) +
                   " have it");
      }
    }
    return std::move(violations_);
  }

 private:
  static bool is_cpp(const fs::path& path) {
    static const std::set<std::string> extensions = {".h", ".cpp", ".cu", ".cuh", ".inc"};
    return extensions.count(path.extension().string()) > 0;
  }

  /// Everything that people write by hand. Data (seed corpora, recorded vectors) may be as long as
  /// it needs to be.
  static bool is_written(const fs::path& path) {
    static const std::set<std::string> extensions = {".py", ".cmake", ".sh", ""};
    const bool in_corpus = path.string().find("/corpus/") != std::string::npos;
    return !in_corpus && (is_cpp(path) || extensions.count(path.extension().string()) > 0 ||
                          path.filename() == "CMakeLists.txt");
  }

  void check_file(const fs::path& path) {
    if (!is_written(path)) return;
    SourceFile file;
    const fs::path relative = path.lexically_relative(tree_);
    file.name = relative.generic_string();
    for (const auto& segment : relative) file.segments.push_back(segment.string());
    std::ifstream stream(path);
    for (std::string line; std::getline(stream, line);) file.lines.push_back(line);

    const int length = static_cast<int>(file.lines.size());
    if (length > kMaxLines) {
      report(
          file.name, 0,
          std::to_string(length) + " lines, more than " + std::to_string(kMaxLines) + ": split it");
    }
    if (!is_cpp(path)) return;
    for (const IncludeLine& include : includes_of(file)) check_include(file, include);
    if (file.is_below("include/tandem")) check_public_identifiers(file);
    if (file.is_below("src") && !file.is_below("src/backend/cuda")) check_conditions(file);
  }

  static std::vector<IncludeLine> includes_of(const SourceFile& file) {
    static const std::regex pattern(R"(^\s*#\s*include\s*([<"])([^>"]+)[>"])");
    std::vector<IncludeLine> includes;
    std::smatch match;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      if (std::regex_search(file.lines[i], match, pattern)) {
        includes.push_back({static_cast<int>(i) + 1, match[2], match[1] == "\""});
      }
    }
    return includes;
  }

  static bool is_nccl(const std::string& header) { return header.rfind("nccl", 0) == 0; }

  static bool is_cuda(const std::string& header) {
    static const std::regex pattern(
        R"(^(cuda|cublas|curand|cusparse|cusolver|cudnn|cufft|nvml|nvrtc|nvtx|nvToolsExt|cub/|thrust/|cutlass/|cute/|)"
        R"(cooperative_groups|mma\.h|vector_types\.h|device_launch_parameters).*)");
    return std::regex_match(header, pattern);
  }

  void check_include(const SourceFile& file, const IncludeLine& include) {
    const auto complain = [&](const std::string& rule) {
      report(file.name, include.line, "includes " + include.path + ": " + rule);
    };
    if (is_nccl(include.path)) {
      if (file.is_below("src/comm")) {
        nccl_files_.insert(file.name);
      } else {
        complain("NCCL's header belongs in one file of src/comm");
      }
      return;
    }
    if (is_cuda(include.path)) {
      if (!file.is_below("kernels") && !file.is_below("src/backend/cuda")) {
        complain("CUDA headers belong in kernels/ and src/backend/cuda");
      }
      return;
    }
    const std::string target = resolve(file, include);
    if (target.empty()) {
      if (file.is_below("include/tandem") && is_third_party(include)) {
        complain("public headers use the standard library alone");
      } else if (include.quoted && file.segments[0] == "src") {
        complain("no such file in src/, include/ or kernels/");
      }
      return;
    }
    check_direction(file, target, complain);
  }

  /// Headers of the standard library have no extension and no folder.
  static bool is_third_party(const IncludeLine& include) {
    return include.path.find_first_of("./") != std::string::npos;
  }

  /// The file of the tree that an include line means, relative to the tree; empty when it is none
  /// of ours.
  std::string resolve(const SourceFile& file, const IncludeLine& include) const {
    const fs::path own_folder = fs::path(file.name).parent_path();
    const std::vector<fs::path> roots = {own_folder, "src", "include", "kernels", ""};
    for (size_t i = include.quoted ? 0 : 1; i < roots.size(); ++i) {
      const fs::path candidate = (roots[i] / include.path).lexically_normal();
      if (fs::is_regular_file(tree_ / candidate)) return candidate.generic_string();
    }
    return {};
  }

  template <class Complain>
  void check_direction(const SourceFile& file, const std::string& target,
                       const Complain& complain) {
    const std::string& from = file.segments[0];
    const fs::path target_path(target);
    const std::string to = target_path.begin()->string();
    if (from == "kernels" && to != "kernels") complain("kernels/ stands alone");
    if (from == "include" && to != "include") complain("public headers include each other alone");
    if (from == "examples" && to != "examples" && to != "include")
      complain("examples use the public API alone");
    if (from != "src") return;
    if (to == "kernels") {
      if (!file.is_below("src/backend/cuda")) complain("only src/backend/cuda calls kernels");
      return;
    }
    if (to != "src") {
      if (to != "include") complain("src/ includes nothing of " + to + "/");
      return;
    }
    const std::string from_layer = file.segments[1];
    const std::string to_layer = std::next(target_path.begin())->string();
    const auto from_height = height_of(from_layer);
    const auto to_height = height_of(to_layer);
    if (!from_height || !to_height) {
      complain("src/" + (from_height ? to_layer : from_layer) + " is not among the known layers");
    } else if (from_layer != to_layer && *to_height >= *from_height) {
      complain(to_layer + " does not stand below " + from_layer);
    }
  }

  static std::optional<int> height_of(const std::string& layer) {
    const auto found = layer_heights().find(layer);
    if (found == layer_heights().end()) return std::nullopt;
    return found->second;
  }

  void check_public_identifiers(const SourceFile& file) {
    static const std::regex include(R"(^\s*#\s*include)");
    static const std::regex pattern(
        R"(\b(cuda[A-Z]\w*|cu(stream|event|blas)\w*|CU(stream|event|device)\w*|nccl[A-Z]\w*|nlohmann|spdlog|fmt::\w+)\b)");
    std::smatch match;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::string code = file.lines[i].substr(0, file.lines[i].find("//"));
      if (!std::regex_search(code, include) && std::regex_search(code, match, pattern)) {
        report(file.name, static_cast<int>(i) + 1, "public headers do not name " + match[1].str());
      }
    }
  }

  void check_conditions(const SourceFile& file) {
    static const std::regex pattern(R"(^\s*#\s*(el)?if.*(CUDA|NCCL))");
    for (size_t i = 0; i < file.lines.size(); ++i) {
      if (std::regex_search(file.lines[i], pattern)) {
        report(file.name, static_cast<int>(i) + 1,
               "CMake chooses a file instead of an #if on CUDA or NCCL");
      }
    }
  }

  void report(const std::string& file, int line, const std::string& rule) {
    violations_.push_back({file, line, rule});
  }

  fs::path tree_;
  std::set<std::string> nccl_files_;
  std::vector<Violation> violations_;
};

}  // namespace

std::string describe(const std::vector<Violation>& violations) {
  std::ostringstream text;
  for (const auto& violation : violations) {
    text << violation.file;
    if (violation.line > 0) text << ':' << violation.line;
    text << ": " << violation.rule << '\n';
  }
  return text.str();
}

std::vector<Violation> check_architecture(const fs::path& tree) {
  return Checker(fs::absolute(tree).lexically_normal()).run();
}

}  // namespace tandem::testing
