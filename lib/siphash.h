/* SipHash-2-4 (Aumasson and Bernstein, 2012): a hash that who does not know the key cannot steer. */
#ifndef AREG_SIPHASH_H
#define AREG_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t siphash(const uint8_t key[16], const void *bytes, size_t len);

#endif
