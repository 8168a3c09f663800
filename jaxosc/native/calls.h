/* How XLA calls a handler: operands and results are buffers in the order of the Python side. */

#ifndef CALLS_H
#define CALLS_H

#include <stdlib.h>

#include "xla/ffi/api/c_api.h"

#define IN(k) ((const XLA_FFI_Buffer *)frame->args.args[k])
#define RESULT(k) ((const XLA_FFI_Buffer *)frame->rets.rets[k])
#define OUT(k) (RESULT(k)->data)

/* The last axis of an operand, and its numbers where there are any. */
#define LAST(k) (IN(k)->dims[IN(k)->rank - 1])
#define GIVEN(k) (LAST(k) > 0 ? IN(k)->data : NULL)

/* Operands 1 to 4 of every handler: W, gain, bias, leak (or nothing, size 0). */
#define NETWORKS                                                                                             \
  {                                                                                                          \
    .matrix = IN(1)->data, .gain = GIVEN(2), .bias = GIVEN(3), .leak = GIVEN(4), .gain_lanes = LAST(2),      \
    .bias_lanes = LAST(3), .leak_lanes = LAST(4)                                                             \
  }

/* Whether the call asks for something else than to compute, answered here: for which version this was compiled. */
static inline int answered(const XLA_FFI_CallFrame *frame) {
  if (frame->extension_start != NULL && frame->extension_start->type == XLA_FFI_Extension_Metadata) {
    XLA_FFI_Metadata *metadata = ((XLA_FFI_Metadata_Extension *)frame->extension_start)->metadata;
    metadata->api_version.major_version = XLA_FFI_API_MAJOR;
    metadata->api_version.minor_version = XLA_FFI_API_MINOR;
    metadata->traits = 0;
    return 1;
  }
  return frame->stage != XLA_FFI_ExecutionStage_EXECUTE;
}

static inline XLA_FFI_Error *no_memory(const XLA_FFI_CallFrame *frame) {
  XLA_FFI_Error_Create_Args args = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL,
                                    "no memory for the states and weights of a block of lanes",
                                    XLA_FFI_Error_Code_RESOURCE_EXHAUSTED};
  return frame->api->XLA_FFI_Error_Create(&args);
}

#endif
