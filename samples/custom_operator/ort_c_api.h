// The part of onnxruntime's C interface that a custom operator of one input and one output needs.
//
// No package for Python holds onnxruntime's own header, onnxruntime_c_api.h, so these are declarations of our own, with
// its names. The table of functions only ever grows at its end: what is used here has stood at the same places since
// version 1 of the interface, so every onnxruntime from 1.8 on takes a library that is built with this file.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef _WIN32
#define ORT_API_CALL __stdcall
#define ORT_EXPORT __declspec(dllexport)
#else
#define ORT_API_CALL
#define ORT_EXPORT __attribute__((visibility("default")))
#endif

struct OrtStatus;
struct OrtValue;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtTensorTypeAndShapeInfo;
typedef OrtStatus* OrtStatusPtr;

enum ONNXTensorElementDataType { ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1 };
enum OrtCustomOpInputOutputCharacteristic { INPUT_OUTPUT_REQUIRED = 0 };

struct OrtCustomOp;

// A table of pointers; `gapN` are those that are not needed here.
struct OrtApi {
  void* gap0[26];
  OrtStatusPtr(ORT_API_CALL* CreateCustomOpDomain)(const char* domain, OrtCustomOpDomain** out);
  OrtStatusPtr(ORT_API_CALL* CustomOpDomain_Add)(OrtCustomOpDomain* domain, const OrtCustomOp* op);
  OrtStatusPtr(ORT_API_CALL* AddCustomOpDomain)(OrtSessionOptions* options, OrtCustomOpDomain* domain);
  void* gap1[22];
  OrtStatusPtr(ORT_API_CALL* GetTensorMutableData)(OrtValue* value, void** out);
  void* gap2[9];
  OrtStatusPtr(ORT_API_CALL* GetDimensionsCount)(const OrtTensorTypeAndShapeInfo* info, size_t* out);
  OrtStatusPtr(ORT_API_CALL* GetDimensions)(const OrtTensorTypeAndShapeInfo* info, int64_t* lengths, size_t count);
  void* gap3[1];
  OrtStatusPtr(ORT_API_CALL* GetTensorShapeElementCount)(const OrtTensorTypeAndShapeInfo* info, size_t* out);
  OrtStatusPtr(ORT_API_CALL* GetTensorTypeAndShape)(const OrtValue* value, OrtTensorTypeAndShapeInfo** out);
  void* gap4[24];
  OrtStatusPtr(ORT_API_CALL* KernelContext_GetInput)(const OrtKernelContext* context, size_t index,
                                                     const OrtValue** out);
  OrtStatusPtr(ORT_API_CALL* KernelContext_GetOutput)(OrtKernelContext* context, size_t index,
                                                      const int64_t* lengths, size_t count, OrtValue** out);
  void* gap5[1];
  void(ORT_API_CALL* ReleaseStatus)(OrtStatus* status);
  void* gap6[5];
  void(ORT_API_CALL* ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo* info);
  void* gap7[1];
  void(ORT_API_CALL* ReleaseCustomOpDomain)(OrtCustomOpDomain* domain);
};
static_assert(sizeof(OrtApi) == 102 * sizeof(void*), "version 1 of the interface has 102 functions");

struct OrtApiBase {
  const OrtApi*(ORT_API_CALL* GetApi)(uint32_t version);
  const char*(ORT_API_CALL* GetVersionString)();
};

// What onnxruntime asks an operator; `version` says how far it may look. This is all of version 8.
struct OrtCustomOp {
  uint32_t version;
  void*(ORT_API_CALL* CreateKernel)(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info);
  const char*(ORT_API_CALL* GetName)(const OrtCustomOp* op);
  const char*(ORT_API_CALL* GetExecutionProviderType)(const OrtCustomOp* op);
  ONNXTensorElementDataType(ORT_API_CALL* GetInputType)(const OrtCustomOp* op, size_t index);
  size_t(ORT_API_CALL* GetInputTypeCount)(const OrtCustomOp* op);
  ONNXTensorElementDataType(ORT_API_CALL* GetOutputType)(const OrtCustomOp* op, size_t index);
  size_t(ORT_API_CALL* GetOutputTypeCount)(const OrtCustomOp* op);
  void(ORT_API_CALL* KernelCompute)(void* kernel, OrtKernelContext* context);
  void(ORT_API_CALL* KernelDestroy)(void* kernel);
  OrtCustomOpInputOutputCharacteristic(ORT_API_CALL* GetInputCharacteristic)(const OrtCustomOp* op, size_t index);
  OrtCustomOpInputOutputCharacteristic(ORT_API_CALL* GetOutputCharacteristic)(const OrtCustomOp* op, size_t index);
};
