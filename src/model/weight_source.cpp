#include "model/weight_source.h"

#include <map>
#include <vector>

#include "core/mapped_file.h"
#include "model/json_text.h"
#include "model/safetensors.h"
#include "tandem/error.h"

namespace tandem {
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

/// The safetensors files of a folder, memory-mapped.
class SafetensorsSource final : public WeightSource {
 public:
  explicit SafetensorsSource(const std::filesystem::path& folder) : folder_(folder) {
    std::error_code ignored;
    if (std::filesystem::exists(folder / kSingleFile, ignored)) {
      const size_t file = open(folder / kSingleFile);
      for (const auto& [name, entry] : files_[file].header)
        tensors_.emplace(name, Location{file, &entry});
    } else if (std::filesystem::exists(folder / kIndexFile, ignored)) {
      open_index(folder / kIndexFile);
    } else {
      throw ModelError(folder.string() + ": holds neither " + kSingleFile + " nor " + kIndexFile +
                       "; convert the checkpoint to safetensors");
    }
  }

  std::string name() const override { return folder_.string(); }

  bool has(std::string_view tensor) const override {
    return tensors_.find(tensor) != tensors_.end();
  }

  TensorInfo info(std::string_view tensor) const override {
    const Location& at = find(tensor);
    const std::string file = files_[at.file].map.path().string();
    const SafetensorsEntry& entry = *at.entry;
    if (!entry.dtype) {
      throw ModelError(file + ": tensor '" + std::string(tensor) + "' has elements of type " +
                       entry.dtype_name + "; F32, F16 and BF16 can be read");
    }
    TensorInfo info{*entry.dtype, {}, file};
    switch (entry.shape.size()) {
      case 1:
        info.shape = {entry.shape[0]};
        break;
      case 2:
        info.shape = {entry.shape[0], entry.shape[1]};
        break;
      default:
        throw ModelError(file + ": tensor '" + std::string(tensor) + "' has " +
                         std::to_string(entry.shape.size()) +
                         " dimensions; a vector or a matrix is expected");
    }
    return info;
  }

  HostMatrix tensor(std::string_view name) override {
    const TensorInfo described = info(name);
    const Location& at = find(name);
    const bool vector = described.shape.rank() == 1;
    HostMatrix matrix;
    matrix.data = elements(at, size_of(described.dtype), name);
    matrix.dtype = described.dtype;
    matrix.rows = vector ? 1 : described.shape[0];
    matrix.cols = vector ? described.shape[0] : described.shape[1];
    matrix.row_stride = matrix.cols;
    return matrix;
  }

  void done_with(std::string_view tensor) override {
    const Location& at = find(tensor);
    if (const auto copy = aligned_.find(tensor); copy != aligned_.end()) aligned_.erase(copy);
    files_[at.file].map.discard(at.entry->begin, at.entry->end - at.entry->begin);
  }

 private:
  struct File {
    MappedFile map;
    SafetensorsHeader header;
  };
  struct Location {
    size_t file = 0;
    const SafetensorsEntry* entry = nullptr;  ///< in the file's header, whose nodes do not move
  };

  /// Where the elements can be read as numbers: in the mapped file, or in a copy of a tensor that
  /// begins between two multiples of its element size, as behind a header that was not padded.
  const std::byte* elements(const Location& at, size_t element_size, std::string_view name) {
    const std::span<const std::byte> bytes =
        files_[at.file].map.bytes().subspan(at.entry->begin, at.entry->end - at.entry->begin);
    if (at.entry->begin % element_size == 0) return bytes.data();
    auto copy = aligned_.find(name);
    if (copy == aligned_.end()) {
      copy = aligned_.emplace(name, std::vector<std::byte>(bytes.begin(), bytes.end())).first;
    }
    return copy->second.data();
  }

  size_t open(const std::filesystem::path& path) {
    File file{MappedFile(path), {}};
    file.header = parse_safetensors(file.map.bytes(), path.string());
    files_.push_back(std::move(file));
    return files_.size() - 1;
  }

  void open_index(const std::filesystem::path& path) {
    const std::string source = path.string();
    const nlohmann::json index = parse_json_object(read_text_file(path), source);
    const auto map = index.find("weight_map");
    if (map == index.end() || !map->is_object() || map->empty()) {
      throw ModelError(source +
                       ": \"weight_map\" is missing or no object of tensor and file names");
    }
    std::map<std::string, size_t> opened;
    for (const auto& [tensor, file] : map->items()) {
      if (!file.is_string())
        throw ModelError(source + ": \"weight_map\" gives no file name for " + shown_name(tensor));
      const std::string name = file.get<std::string>();
      // Shards lie beside their index; anything else would let a checkpoint read other files.
      if (name.empty() || std::filesystem::path(name).filename() != name || name == "." ||
          name == "..") {
        throw ModelError(source + ": \"weight_map\" names the file " + shown(file) +
                         ", which is not in the model's folder");
      }
      auto found = opened.find(name);
      if (found == opened.end()) found = opened.emplace(name, open(folder_ / name)).first;
      const auto entry = files_[found->second].header.find(tensor);
      if (entry == files_[found->second].header.end()) {
        throw ModelError(source + ": tensor " + shown_name(tensor) + " is said to be in " +
                         shown(file) + ", which does not hold it");
      }
      tensors_.emplace(tensor, Location{found->second, &entry->second});
    }
  }

  const Location& find(std::string_view tensor) const {
    const auto found = tensors_.find(tensor);
    if (found == tensors_.end()) {
      throw ModelError(folder_.string() + ": the checkpoint has no tensor '" + std::string(tensor) +
                       "'; config.json describes another model, or a shard is missing");
    }
    return found->second;
  }

  std::filesystem::path folder_;
  std::vector<File> files_;
  std::map<std::string, Location, std::less<>> tensors_;
  std::map<std::string, std::vector<std::byte>, std::less<>> aligned_;  ///< until `done_with`
};

}  // namespace

HostMatrix WeightSource::window(std::string_view name, Range rows, Range cols) {
  HostMatrix part = tensor(name);
  const auto offset =
      static_cast<size_t>(rows.begin * part.row_stride + cols.begin) * size_of(part.dtype);
  part.data = static_cast<const std::byte*>(part.data) + offset;
  part.rows = rows.size();
  part.cols = cols.size();
  return part;
}

std::unique_ptr<WeightSource> open_weights(const std::filesystem::path& folder) {
  return std::make_unique<SafetensorsSource>(folder);
}

}  // namespace tandem
