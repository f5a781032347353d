#pragma once

// Everything a program needs to generate text with tandem.
#include "tandem/config.h"
#include "tandem/engine.h"
#include "tandem/error.h"
#include "tandem/ledger.h"
#include "tandem/plan.h"
#include "tandem/processes.h"
#include "tandem/sampling.h"
#include "tandem/speedup.h"
#include "tandem/stats.h"
