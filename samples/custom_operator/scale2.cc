// A custom operator for onnxruntime: com.example::Scale2, y = 2 x, float32 of any rank.
//
//   g++ -std=c++17 -O2 -shared -fPIC -fvisibility=hidden scale2.cc -o libscale2.so
//
// Written against ort_c_api.h beside this file; the names are those of onnxruntime's own header.
#include "ort_c_api.h"

#include <vector>

namespace {

// The lowest version of the interface that does: an older onnxruntime refuses a higher one, a newer one takes this.
constexpr uint32_t kVersion = 8;

struct Kernel {
  const OrtApi* api;
};

// Whether a call succeeded. A failed one leaves the output as it is: this version of the interface has no way to
// report an error from inside a kernel, and none of these calls fails on a tensor of floats.
bool ok(const OrtApi* api, OrtStatusPtr status) {
  if (status == nullptr) return true;
  api->ReleaseStatus(status);
  return false;
}

void compute(void* kernel, OrtKernelContext* context) {
  const OrtApi* api = static_cast<Kernel*>(kernel)->api;
  const OrtValue* input = nullptr;
  OrtTensorTypeAndShapeInfo* info = nullptr;
  if (!ok(api, api->KernelContext_GetInput(context, 0, &input))) return;
  if (!ok(api, api->GetTensorTypeAndShape(input, &info))) return;
  size_t rank = 0, count = 0;
  bool known = ok(api, api->GetDimensionsCount(info, &rank));
  std::vector<int64_t> lengths(rank);
  known = known && ok(api, api->GetDimensions(info, lengths.data(), rank));
  known = known && ok(api, api->GetTensorShapeElementCount(info, &count));
  api->ReleaseTensorTypeAndShapeInfo(info);
  OrtValue* output = nullptr;
  if (!known || !ok(api, api->KernelContext_GetOutput(context, 0, lengths.data(), rank, &output))) return;
  void* from = nullptr;
  void* to = nullptr;
  // The same function reads and writes; the input is not changed.
  if (!ok(api, api->GetTensorMutableData(const_cast<OrtValue*>(input), &from))) return;
  if (!ok(api, api->GetTensorMutableData(output, &to))) return;
  const float* x = static_cast<const float*>(from);
  float* y = static_cast<float*>(to);
  for (size_t index = 0; index < count; ++index) y[index] = 2.0f * x[index];
}

OrtCustomOp make_scale2() {
  OrtCustomOp op{};
  op.version = kVersion;
  op.CreateKernel = [](const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo*) -> void* {
    return new Kernel{api};
  };
  op.GetName = [](const OrtCustomOp*) { return "Scale2"; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };  // the CPU
  op.GetInputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
  op.GetInputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op.GetOutputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
  op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op.KernelCompute = compute;
  op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  return op;
}

}  // namespace

// onnxruntime calls this for every session; operator and domain live as long as the library.
extern "C" ORT_EXPORT OrtStatusPtr ORT_API_CALL RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(kVersion);
  if (api == nullptr) return nullptr;  // an onnxruntime older than 1.8, which says so itself
  static const OrtCustomOp scale2 = make_scale2();
  static OrtCustomOpDomain* domain = nullptr;
  if (domain == nullptr) {
    OrtCustomOpDomain* made = nullptr;
    if (OrtStatusPtr status = api->CreateCustomOpDomain("com.example", &made)) return status;
    if (OrtStatusPtr status = api->CustomOpDomain_Add(made, &scale2)) {
      api->ReleaseCustomOpDomain(made);
      return status;
    }
    domain = made;
  }
  return api->AddCustomOpDomain(options, domain);
}
