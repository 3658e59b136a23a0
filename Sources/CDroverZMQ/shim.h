// SPDX-License-Identifier: Apache-2.0
#ifndef DROVER_ZMQ_SHIM_H
#define DROVER_ZMQ_SHIM_H

#include <sys/eventfd.h>
#include <zmq.h>

// Swift can't import the EFD_* enumerators used as flags.
static inline int drover_eventfd(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

#endif
